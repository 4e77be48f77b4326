"""Field ownership: which manager wrote which field, and server-side apply.

A field set is a set of paths; a path is a tuple of elements as managedFields writes them (``f:name``, ``k:{...}``).
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and the behaviour of structured-merge-diff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import orjson

from isthmus.embedded.errors import ApiError, Cause, apply_conflict, bad_request
from isthmus.embedded.shapes import KEY_DEFAULTS, Shape

Path = tuple[str, ...]
FieldSet = set[Path]

# Fields that the server itself keeps; nobody owns them.
# Source: the real server's list of stripped metadata.
_UNOWNED: tuple[Path, ...] = (
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ),
)


class Manager(msgspec.Struct, frozen=True, order=True):
    """Who owns fields: a name, how it wrote, in which version, through which subresource."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


class Owned(msgspec.Struct):
    """The fields of one manager and when they last changed."""

    paths: FieldSet
    time: str


Owners = dict[Manager, Owned]


# --- managedFields <-> owners ---


def read_owners(managed: Iterable[dict[str, Any]]) -> Owners:
    """Owners as metadata.managedFields writes them. Raises ApiError 400 on anything else."""
    owners: Owners = {}
    for entry in managed:
        try:
            manager = Manager(
                entry.get("manager", ""), entry["operation"], entry["apiVersion"], entry.get("subresource", "")
            )
            paths: FieldSet = set()
            _read_paths(entry.get("fieldsV1") or {}, (), paths)
        except (KeyError, AttributeError, TypeError) as error:
            raise bad_request(f"metadata.managedFields: {error!r}") from error
        owners[manager] = Owned(paths, entry.get("time", ""))
    return owners


def _read_paths(tree: dict[str, Any], at: Path, paths: FieldSet) -> None:
    for element, below in tree.items():
        if element == ".":
            paths.add(at)
        elif below:
            _read_paths(below, (*at, element), paths)
        else:
            paths.add((*at, element))


def write_owners(owners: Owners) -> list[dict[str, Any]]:
    """metadata.managedFields: appliers first, then by time and name, as the real server sorts them."""
    entries = []
    for manager, owned in sorted(owners.items(), key=lambda item: (item[0].operation, item[1].time, item[0])):
        entry: dict[str, Any] = {"manager": manager.name, "operation": manager.operation}
        entry |= {"apiVersion": manager.api_version}
        if owned.time:
            entry["time"] = owned.time
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = _tree(owned.paths)
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


def _tree(paths: FieldSet) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
    for path in paths:
        node = root
        for element in path:
            node = node[element]
        if node and "." not in node:
            node["."] = {}
    return root


# --- field sets of values ---


def field_set(value: Any, shape: Shape) -> FieldSet:
    """The fields that an applied configuration names."""
    paths: FieldSet = set()
    _collect(value, shape, (), paths)
    return paths


def _collect(value: Any, shape: Shape, at: Path, paths: FieldSet) -> None:
    if isinstance(value, dict) and not shape.atomic:
        for name, below in value.items():
            path = (*at, f"f:{name}")
            _collect(below, shape.field(name), path, paths)
            if below is None or below == {} or (shape.open and name not in shape.fields):
                paths.add(path)
    elif isinstance(value, list) and _granular(shape):
        for item in value:
            path = (*at, _element(item, shape))
            _collect(item, shape.item, path, paths)
            paths.add(path)
    else:
        paths.add(at)


def _granular(shape: Shape) -> bool:
    return shape.is_set or bool(shape.keys)


def _element(item: Any, shape: Shape) -> str:
    if shape.is_set or not isinstance(item, dict):
        return "v:" + orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()
    key = {}
    for name in sorted(shape.keys):
        if name in item or name in KEY_DEFAULTS:
            key[name] = item.get(name, KEY_DEFAULTS.get(name))
    return "k:" + orjson.dumps(key, option=orjson.OPT_SORT_KEYS).decode()


class _Comparison:
    def __init__(self) -> None:
        self.changed: FieldSet = set()
        """Added and modified fields."""
        self.removed: FieldSet = set()


_ABSENT: Any = object()


def _compare(old: Any, new: Any, shape: Shape, at: Path, result: _Comparison) -> None:
    if old is new:
        return
    one = new if old is _ABSENT else old
    if isinstance(one, dict) and not shape.atomic and (isinstance(new, dict) or new is _ABSENT):
        before: dict[str, Any] = {} if old is _ABSENT else old
        after: dict[str, Any] = {} if new is _ABSENT else new
        if before or after:
            for name in before.keys() | after.keys():
                left, right = before.get(name, _ABSENT), after.get(name, _ABSENT)
                _compare(left, right, shape.field(name), (*at, f"f:{name}"), result)
            _mark_container(old, new, at, result)
            return
    if isinstance(one, list) and _granular(shape) and (isinstance(new, list) or new is _ABSENT):
        before_items = {} if old is _ABSENT else {_element(item, shape): item for item in old}
        after_items = {} if new is _ABSENT else {_element(item, shape): item for item in new}
        if before_items or after_items:
            for element in before_items.keys() | after_items.keys():
                left, right = before_items.get(element, _ABSENT), after_items.get(element, _ABSENT)
                _compare(left, right, shape.item, (*at, element), result)
            _mark_container(old, new, at, result)
            return
    if old is _ABSENT:
        result.changed |= _all_below(new, shape, at)
    elif new is _ABSENT:
        result.removed |= _all_below(old, shape, at)
    elif old != new:
        if isinstance(old, dict | list) and type(old) is not type(new):
            result.removed |= _all_below(old, shape, at) - {at}
        result.changed |= _all_below(new, shape, at)
        result.changed.add(at)


def _mark_container(old: Any, new: Any, at: Path, result: _Comparison) -> None:
    if old is _ABSENT:
        result.changed.add(at)
    elif new is _ABSENT:
        result.removed.add(at)


def _all_below(value: Any, shape: Shape, at: Path) -> FieldSet:
    paths: FieldSet = set()
    _collect(value, shape, at, paths)
    paths.add(at)
    return paths


def compare(old: dict[str, Any] | None, new: dict[str, Any], shape: Shape) -> _Comparison:
    """Which fields a write changed or added, and which it removed."""
    result = _Comparison()
    _compare(_owned_part(old or {}), _owned_part(new), shape, (), result)
    return result


def _owned_part(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in manifest.get("metadata", {}).items() if k not in _SERVER_METADATA}
    return {**{k: v for k, v in manifest.items() if k not in ("apiVersion", "kind")}, "metadata": metadata}


_SERVER_METADATA = frozenset(path[1][2:] for path in _UNOWNED if len(path) == 2)


# --- writes ---


def after_update(
    owners: Owners, old: dict[str, Any] | None, new: dict[str, Any], shape: Shape, manager: Manager, now: str
) -> Owners:
    """Owners after *manager* wrote *new* over *old* by anything but apply: it takes what it changed."""
    change = compare(old, new, shape)
    result = _without(owners, change.changed | change.removed, manager)
    mine = owners.get(manager)
    paths = ((mine.paths if mine else set()) - change.removed) | change.changed
    paths.difference_update(_UNOWNED)
    paths.discard(())
    return _with_manager(result, owners, manager, paths, now)


def _without(owners: Owners, paths: FieldSet, keep: Manager) -> Owners:
    result: Owners = {}
    for manager, owned in owners.items():
        if manager == keep:
            continue
        left = owned.paths - paths
        if left:
            result[manager] = owned if len(left) == len(owned.paths) else Owned(left, owned.time)
    return result


def _with_manager(result: Owners, owners: Owners, manager: Manager, paths: FieldSet, now: str) -> Owners:
    if paths:
        before = owners.get(manager)
        unchanged = before is not None and before.paths == paths
        result[manager] = Owned(paths, before.time if before is not None and unchanged else now)
    return result


def apply(
    owners: Owners,
    live: dict[str, Any],
    config: dict[str, Any],
    shape: Shape,
    manager: Manager,
    *,
    reset: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
    force: bool,
    now: str,
) -> tuple[dict[str, Any], Owners]:
    """*live* with *config* applied, and the owners then. Raises ApiError 409 naming managers and fields.

    *reset* takes out of the configuration what this way of writing may not change (status, or all but status).
    """
    wanted = reset({**_owned_part(config), "metadata": _owned_part(config)["metadata"]})
    paths = field_set(_owned_part(wanted), shape)
    paths.difference_update(_UNOWNED)
    _refuse_duplicates(config, shape, "")
    before = owners.get(manager)
    others = {other: owned for other, owned in owners.items() if other != manager}
    merged: dict[str, Any] = _merge(live, {k: v for k, v in wanted.items() if k not in ("apiVersion", "kind")}, shape)
    if before is not None:
        kept = _closure(paths)
        for owned in others.values():
            kept |= _closure(owned.paths)
        _remove(merged, shape, (), _closure(before.paths) - kept - set(_UNOWNED))
    change = compare(live, merged, shape)
    conflicts = [
        (other, path)
        for other, owned in sorted(others.items(), key=lambda item: item[0])
        for path in sorted(owned.paths & change.changed)
    ]
    if conflicts and not force:
        raise _conflict_error(conflicts)
    result = _without(owners, change.changed | change.removed, manager)
    # An apply that only joins the owners leaves no time, as on the real server.
    stamp = now if change.changed or change.removed else before.time if before is not None else ""
    return merged, _with_manager(result, owners, manager, paths, stamp)


def _closure(paths: FieldSet) -> FieldSet:
    return {path[:length] for path in paths for length in range(1, len(path) + 1)}


def _merge(live: Any, config: Any, shape: Shape) -> Any:
    if isinstance(live, dict) and isinstance(config, dict) and not shape.atomic:
        merged = dict(live)
        for name, value in config.items():
            merged[name] = _merge(live[name], value, shape.field(name)) if name in live else value
        return merged
    if isinstance(live, list) and isinstance(config, list) and _granular(shape):
        return _merge_lists(live, config, shape)
    return config


def _merge_lists(live: list[Any], config: list[Any], shape: Shape) -> list[Any]:
    """Items of both in the order of *config*; an item that only *live* has stays before what followed it there."""
    old = [(_element(item, shape), item) for item in live]
    new = {_element(item, shape): item for item in config}
    by_element = dict(old)
    rest = list(new)
    done: set[str] = set()
    merged = []
    at = 0
    while at < len(old) or rest:
        if at < len(old) and (old[at][0] not in new or old[at][0] in done):
            if old[at][0] not in new:
                merged.append(old[at][1])
            at += 1
            continue
        element = rest.pop(0)
        done.add(element)
        value = new[element]
        merged.append(_merge(by_element[element], value, shape.item) if element in by_element else value)
    return merged


def _remove(value: Any, shape: Shape, at: Path, paths: FieldSet) -> None:
    """Take the fields at *paths* out of *value*, which is changed in place."""
    below: dict[str, list[Path]] = {}
    for path in paths:
        below.setdefault(path[0], []).append(path[1:])
    if isinstance(value, dict) and not shape.atomic:
        for element, rest in below.items():
            name = element[2:]
            if name not in value:
                continue
            if () in rest:
                del value[name]
            else:
                value[name] = _copy(value[name])
                _remove(value[name], shape.field(name), (*at, element), set(rest))
    elif isinstance(value, list) and _granular(shape):
        items = []
        for item in value:
            rest = below.get(_element(item, shape), [])
            if () in rest:
                continue
            rest = [path for path in rest if path[0][2:] not in shape.keys]  # what identifies an item stays with it
            if rest:
                item = _copy(item)
                _remove(item, shape.item, (), set(rest))
            items.append(item)
        value[:] = items


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list) else value


def _refuse_duplicates(value: Any, shape: Shape, at: str) -> None:
    if isinstance(value, dict):
        for name, below in value.items():
            _refuse_duplicates(below, shape.field(name), f"{at}.{name}")
    elif isinstance(value, list) and _granular(shape):
        seen = set()
        for item in value:
            element = _element(item, shape)
            if element in seen:
                raise ApiError(
                    500, "", f"failed to create typed patch object: {at}: duplicate entries for key {_shown(element)}"
                )
            seen.add(element)
            _refuse_duplicates(item, shape.item, f"{at}{_shown(element)}")


# --- messages ---


def _conflict_error(conflicts: list[tuple[Manager, Path]]) -> ApiError:
    causes = [
        Cause(shown_path(path), "FieldManagerConflict", f"conflict with {_who(manager)}") for manager, path in conflicts
    ]
    if len(conflicts) == 1:
        manager, path = conflicts[0]
        return apply_conflict(
            f"Apply failed with 1 conflict: conflict with {_who(manager)}: {shown_path(path)}", causes
        )
    lines = []
    for manager in dict.fromkeys(manager for manager, _ in conflicts):
        lines.append(f"conflicts with {_who(manager)}:")
        lines += [f"- {shown_path(path)}" for other, path in conflicts if other == manager]
    return apply_conflict(f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines), causes)


def _who(manager: Manager) -> str:
    text = f'"{manager.name}"'
    if manager.subresource:
        text += f' with subresource "{manager.subresource}"'
    if manager.operation == "Update":
        text += f" using {manager.api_version}"
    return text


def shown_path(path: Path) -> str:
    """A path as messages write it: ``.spec.containers[name="a"].image``."""
    return "".join(_shown(element) for element in path)


def _shown(element: str) -> str:
    if element.startswith("f:"):
        return f".{element[2:]}"
    if element.startswith("k:"):
        key = orjson.loads(element[2:])
        return "[" + ",".join(f"{name}={orjson.dumps(value).decode()}" for name, value in key.items()) + "]"
    return f"[={element[2:]}]"

"""The three patch formats that change an object from outside: JSON merge patch, JSON patch, strategic merge patch.

Source: RFC 7386, RFC 6902, and
https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

from typing import Any

from isthmus.embedded.errors import ApiError, bad_request
from isthmus.embedded.shapes import KEY_DEFAULTS, Shape


def merge_patch(target: Any, patch: Any) -> Any:
    """*target* with a JSON merge patch; null removes."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def json_patch(target: dict[str, Any], operations: Any) -> dict[str, Any]:
    """*target* with a list of JSON patch operations."""
    import jsonpatch  # rarely used, and its import costs more than the server's start

    try:
        result = jsonpatch.apply_patch(target, operations)
    except (jsonpatch.JsonPatchTestFailed, jsonpatch.JsonPatchConflict, jsonpatch.JsonPointerException) as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    except (jsonpatch.InvalidJsonPatch, TypeError, KeyError) as error:
        raise bad_request(f"error decoding patch: {error}") from error
    if not isinstance(result, dict):
        raise bad_request("a patch may not replace the whole object by something else")
    return result


def strategic_merge_patch(target: Any, patch: Any, shape: Shape) -> Any:
    """*target* with a strategic merge patch: lists with a key are merged item by item."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive not in (None, "merge"):
        raise bad_request(f"unrecognized action type: {directive}")
    result = dict(target) if isinstance(target, dict) else {}
    orders = {}
    for name, value in patch.items():
        if name.startswith("$setElementOrder/"):
            orders[name.partition("/")[2]] = value
        elif name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif name == "$retainKeys":
            result = {key: kept for key, kept in result.items() if key in value}
        elif name == "$patch":
            continue
        elif value is None:
            result.pop(name, None)
        elif isinstance(value, list) and shape.field(name).patch_key:
            result[name] = _merge_list(result.get(name) or [], value, shape.field(name))
        elif isinstance(value, dict):
            result[name] = strategic_merge_patch(result.get(name), value, shape.field(name))
        else:
            result[name] = value
    for name, order in orders.items():
        if isinstance(result.get(name), list):
            before = target.get(name) if isinstance(target, dict) else None
            result[name] = _ordered(result[name], order, before or [], shape.field(name).patch_key or ".")
    return result


def _merge_list(target: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    key = shape.patch_key
    if key == ".":
        return _ordered([*target, *(item for item in patch if item not in target)], patch, target, key)
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and "$patch" in item)]
    result = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        same = [at for at, old in enumerate(result) if _same(old, item, key)]
        if item.get("$patch") == "delete":
            result = [old for at, old in enumerate(result) if at not in same]
        elif same:
            result[same[0]] = strategic_merge_patch(result[same[0]], item, shape.item)
        else:
            result.append(strategic_merge_patch({}, item, shape.item))
    return _ordered(result, [item for item in patch if "$patch" not in item], target, key)


def _same(old: Any, item: dict[str, Any], key: str) -> bool:
    return isinstance(old, dict) and _mark(old, key) == _mark(item, key)


def _mark(item: Any, key: str) -> str:
    """What identifies an item of a list whose merge key is *key*."""
    return str(item.get(key, KEY_DEFAULTS.get(key)) if key != "." and isinstance(item, dict) else item)


def _ordered(items: list[Any], order: list[Any], before: list[Any], key: str) -> list[Any]:
    """Items in the order of the patch; those that it does not name come as early as the order *before* allows."""
    wanted = [_mark(item, key) for item in order]
    server = {_mark(item, key): at for at, item in enumerate(before)}
    named = sorted(
        (item for item in items if _mark(item, key) in wanted), key=lambda item: wanted.index(_mark(item, key))
    )
    others = [item for item in items if _mark(item, key) not in wanted]
    result = []
    while named and others:
        left, right = server.get(_mark(others[0], key), -1), server.get(_mark(named[0], key), -1)
        result.append(others.pop(0) if 0 <= left < right else named.pop(0))
    return [*result, *others, *named]

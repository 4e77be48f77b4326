"""Reference pages, made from the types: one per kind, and an index."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.docstrings import attribute_docs, plain, summary
from isthmus.api.kinds import CERTIFICATES, DISCOVERED, KINDS, POLICIES, REGISTRATION
from isthmus.api.shape import EnumOf, Field, ListOf, MapOf, Message, Scalar, Shape, fields_of, oneofs_of
from isthmus.api.spellings import Spelling, spellings_of

MARK = "<!-- Generated from isthmus.api by `make generate`. -->\n"

GROUPS = (
    ("What you write", POLICIES),
    ("What agents discover", DISCOVERED),
    ("What registration writes", REGISTRATION),
    ("How certificates reach a cluster", CERTIFICATES),
)

INPUT = """\
## What is accepted

- Field names in camelCase (`trafficShift`). In files that `meshctl` reads, snake_case (`traffic_shift`) too; a
  Kubernetes API server drops it.
- Durations as in Go: `2s`, `150ms`, `1m30s`, `1.5h`. They are kept in seconds: `90s`, `0.150s`.
- Enum values in upper case. In files that `meshctl` reads, their numbers too.
- At most one field of a *oneof*.
- The other spellings listed on each page. Where they can be meant in two ways, a warning says how they were read.

An unknown field, a wrong type or two fields of one oneof make an object INVALID; the error names the field's path and
what was expected there. Zero values (`false`, `0`, `""`, an empty list, the first value of an enum) are not written, so
a state of PENDING is seen as no `state`.
"""


# Specs and statuses that other kinds quote: their pages link to the kind instead of repeating its fields.
QUOTED: dict[type[ApiStruct], type[Resource]] = {
    field.shape.cls: cls
    for cls in KINDS
    for field in fields_of(cls)
    if field.name != "metadata" and isinstance(field.shape, Message)
}


def page_name(cls: type[Resource]) -> str:
    """File name of the page of *cls*."""
    return f"{cls.KIND.kind.lower()}.md"


def index() -> str:
    """The page that lists all kinds."""
    lines = [MARK, "# API reference", ""]
    for title, types in GROUPS:
        lines += [f"## {title}", "", "| Kind | apiVersion | Short names | |", "| --- | --- | --- | --- |"]
        for cls in types:
            names = ", ".join(f"`{name}`" for name in cls.SHORT_NAMES)
            link = f"[{cls.KIND.kind}]({page_name(cls)})"
            lines.append(f"| {link} | `{cls.KIND.api_version}` | {names} | {plain(summary(cls))} |")
        lines.append("")
    return "\n".join(lines) + "\n" + INPUT


def page(cls: type[Resource]) -> str:
    """The page of one kind: what it is, an example, its names and its fields."""
    kind = cls.KIND
    names = ", ".join(f"`{name}`" for name in (kind.plural, kind.kind.lower(), *cls.SHORT_NAMES))
    columns = ", ".join(header for header, _, _ in cls.COLUMNS)
    parts = {field.name: field.shape for field in fields_of(cls)}
    lines = [MARK, f"# {kind.kind}", "", plain(summary(cls)), ""]
    lines += ["| | |", "| --- | --- |", f"| apiVersion | `{kind.api_version}` |", f"| kind | `{kind.kind}` |"]
    lines += [f"| kubectl names | {names} |", f"| kubectl columns | {columns} |", ""]
    lines += ["## Example", "", "```yaml", cls.EXAMPLE.rstrip("\n"), "```", ""]
    for name in ("spec", "status"):
        lines += [f"## {name}", ""]
        lines += ["| Field | Type | Default | |", "| --- | --- | --- | --- |", *_rows(parts[name], name), ""]
    if others := list(_others(parts["spec"], "spec")):
        lines += ["## Other spellings", "", "| Written | Read as | |", "| --- | --- | --- |", *others, ""]
    return "\n".join(lines)


def _rows(shape: Shape, at: str) -> Iterator[str]:
    for path, cls in _messages(shape, at):
        docs, oneofs = attribute_docs(cls), [group for group in oneofs_of(cls) if len(group) > 1]
        for field in fields_of(cls):
            oneof = next((group for group in oneofs if field.name in group), ())
            others = ", ".join(f"`{name}`" for name in oneof if name != field.name)
            note = f" *Oneof with {others}.*" if others else ""
            text = plain(docs[field.attribute]).replace("|", "\\|")
            yield f"| `{path}.{field.name}` | {type_name(field.shape)} | {_default(field)} | {text}{note} |"


def _others(shape: Shape, at: str) -> Iterator[str]:
    for path, cls in _messages(shape, at):
        for row in spellings_of(cls).values():
            yield f"| `{path}.{row.old}` | `{path}.{row.new}` | {_remark(row)} |"


def _remark(row: Spelling) -> str:
    if row.doubt:
        return f"with a warning: {row.doubt}"
    return f"unless `{row.new.partition('.')[0]}` is set" if row.yields else ""


def _messages(shape: Shape, at: str) -> Iterator[tuple[str, type[ApiStruct]]]:
    """Path and type of every message in *shape*, itself included, in the order of a page."""
    match shape:
        case Message(cls):
            yield at, cls
            for field in fields_of(cls):
                if not (isinstance(field.shape, Message) and field.shape.cls in QUOTED):
                    yield from _messages(field.shape, f"{at}.{field.name}")
        case ListOf(item):
            yield from _messages(item, f"{at}[]")
        case MapOf(item):
            yield from _messages(item, f"{at}[*]")


def type_name(shape: Shape) -> str:
    """The type as a reader knows it, such as ``list of string``."""
    match shape:
        case ListOf(item):
            return f"list of {type_name(item)}"
        case MapOf(item):
            return f"map to {type_name(item)}"
        case EnumOf(cls):
            return " \\| ".join(f"`{member.value}`" for member in cls)
        case Scalar(name=name):
            return "string" if name == "upper" else name
        case Message(cls) if quoted := QUOTED.get(cls):
            return f"as in [{quoted.KIND.kind}]({page_name(quoted)})"
        case Message(cls):
            return "object" if fields_of(cls) else "`{}`"


def _default(field: Field) -> str:
    """The zero value where one is implied and says something; a blank cell means unset or empty."""
    if field.optional:
        return ""
    match field.shape:
        case EnumOf(cls):
            return f"`{next(iter(cls)).value}`"
        case Scalar(name="bool"):
            return "`false`"
        case Scalar(name="uint32" | "int32" | "int64" | "float" | "double"):
            return "`0`"
        case _:
            return ""


def pages() -> dict[str, str]:
    """All pages by file name."""
    return {"README.md": index(), **{page_name(cls): page(cls) for cls in KINDS}}

"""Hypothesis strategies for our types, made from the types themselves, so that a new field is generated at once."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from isthmus.api.base import ApiStruct, ObjectMeta, Resource
from isthmus.api.duration import normal_duration
from isthmus.api.shape import EnumOf, Field, ListOf, MapOf, Message, Scalar, Shape, fields_of

MOST_FIELDS = 5  # set in one message; keeps deep kinds small
LONGEST_NANOSECONDS = 2**63 - 1


def durations() -> st.SearchStrategy[str]:
    """Durations in the normal form, such as ``0.100s``."""
    return st.integers(0, LONGEST_NANOSECONDS).map(lambda nanoseconds: normal_duration(f"{nanoseconds}ns") or "")


def names() -> st.SearchStrategy[str]:
    """Names of Kubernetes objects."""
    return st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=12),
    "upper": st.sampled_from(["", "HTTP", "HTTP2", "TCP"]),
    "duration": st.just("") | durations(),
    "timestamp": st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds") + "Z"),
    "bytes": st.binary(max_size=12),
    "bool": st.booleans(),
    "float": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "double": st.floats(allow_nan=False, allow_infinity=False),
}


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Values of a field of this shape."""
    match shape:
        case Message(cls):
            return messages(cls)
        case ListOf(item):
            return st.lists(values(item), max_size=2).map(tuple)
        case MapOf(item):
            return st.dictionaries(st.text(max_size=8), values(item), max_size=2)
        case EnumOf(cls):
            return st.sampled_from(cls)
        case Scalar(low=int() as low, high=int() as high):
            return st.integers(low, high)
        case Scalar(name="int64"):
            return st.integers(0, 2**62)
        case Scalar(name=name):
            return SCALARS[name]


@st.composite
def messages(draw: st.DrawFn, cls: type[ApiStruct]) -> ApiStruct:
    """Messages with a few of their fields set, and at most one arm of each oneof."""
    fields = fields_of(cls)
    if not fields:
        return cls()
    chosen = draw(st.lists(st.sampled_from(fields), max_size=MOST_FIELDS, unique_by=lambda field: _group(cls, field)))
    return cls(**{field.attribute: draw(values(field.shape)) for field in chosen})


def _group(cls: type[ApiStruct], field: Field) -> str:
    """The same for fields that exclude each other."""
    return next((str(group) for group in cls.ONEOFS if field.attribute in group), field.attribute)


@st.composite
def resources(draw: st.DrawFn, cls: type[Resource]) -> Resource:
    """Objects of one kind, with a name that an API server takes."""
    metadata = ObjectMeta(
        name=draw(names()),
        namespace=draw(names()),
        labels=draw(st.dictionaries(names(), names(), max_size=2)),
        generation=draw(st.integers(0, 2**62)),
    )
    spec, status = (next(f for f in fields_of(cls) if f.name == part) for part in ("spec", "status"))
    return cls(
        metadata=metadata,
        spec=draw(values(spec.shape)),  # type: ignore[call-arg]
        status=draw(st.none() | values(status.shape)),
    )


def json_values() -> st.SearchStrategy[Any]:
    """Whatever a YAML or JSON file can hold."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    keys = st.text(max_size=8) | st.integers() | st.booleans()
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
    )

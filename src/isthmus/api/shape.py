"""What the types look like: their fields in the few words that parsing, schemas and reference pages need.

The types are the only description there is; this module reads it from them through `msgspec.inspect`.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect

from isthmus.api.base import ApiStruct


class Scalar(msgspec.Struct, frozen=True):
    """A single value. *name* is its name in the reference: string, bool, uint32, int32, int64, float, double, bytes,
    duration, timestamp or upper (see `isthmus.api.scalars`)."""

    name: str
    low: int | None = None
    high: int | None = None


class EnumOf(msgspec.Struct, frozen=True):
    """One of the values of *cls*, in the order of their numbers."""

    cls: type[Enum]


class ListOf(msgspec.Struct, frozen=True):
    """A list of items."""

    item: Shape


class MapOf(msgspec.Struct, frozen=True):
    """A map from strings to items."""

    item: Shape


class Message(msgspec.Struct, frozen=True):
    """An object of type *cls*; its fields are `fields_of(cls)`."""

    cls: type[ApiStruct]


Shape: TypeAlias = Scalar | EnumOf | ListOf | MapOf | Message


class Field(msgspec.Struct, frozen=True):
    """A field of a message: *attribute* in Python, *name* in JSON. Not *optional* means that zero and unset are one."""

    attribute: str
    name: str
    shape: Shape
    optional: bool


@cache
def fields_of(cls: type[ApiStruct]) -> tuple[Field, ...]:
    """The fields of *cls* in the order in which it declares them."""
    described = inspect.type_info(cls)
    assert isinstance(described, inspect.StructType)
    return tuple(_field(field) for field in described.fields)


@cache
def oneofs_of(cls: type[ApiStruct]) -> tuple[tuple[str, ...], ...]:
    """Groups of JSON field names of which at most one may be set."""
    names = {field.attribute: field.name for field in fields_of(cls)}
    return tuple(tuple(names[attribute] for attribute in group) for group in cls.ONEOFS)


def _field(field: inspect.Field) -> Field:
    described, optional = field.type, False
    if isinstance(described, inspect.UnionType):
        (described,) = (t for t in described.types if not isinstance(t, inspect.NoneType))
        optional = True
    return Field(field.name, field.encode_name, _shape(described), optional)


FORMS = {"date-time": "timestamp"}  # where the reference's name is not the format's


def _shape(described: inspect.Type) -> Shape:
    extra: dict[str, Any] = {}
    if isinstance(described, inspect.Metadata):
        extra = described.extra or {}
        described = described.type
    form: str | None = extra.get("form") or extra.get("format")
    match described:
        case inspect.StructType(cls=cls):
            assert issubclass(cls, ApiStruct)
            return Message(cls)
        case inspect.EnumType(cls=cls):
            return EnumOf(cls)
        case inspect.VarTupleType(item_type=item):
            return ListOf(_shape(item))
        case inspect.DictType(value_type=item):
            return MapOf(_shape(item))
        case inspect.StrType():
            return Scalar(FORMS.get(form, form) if form else "string")
        case inspect.IntType(ge=low, le=high):
            return Scalar(form or ("uint32" if low == 0 else "int64"), low, high)
        case inspect.FloatType():
            return Scalar(form or "double")
        case inspect.BoolType():
            return Scalar("bool")
        case inspect.ByteArrayType() | inspect.BytesType():
            return Scalar("bytes")
        case _:
            raise TypeError(f"{described} has no place in an API type")

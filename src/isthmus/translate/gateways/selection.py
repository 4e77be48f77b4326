"""Which objects of the management cluster an `ObjectSelector` selects, and how to find them without trying all.

Source: reference, ObjectSelector; operators mean what those of Kubernetes' label selectors mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from isthmus.api.base import Resource
from isthmus.api.common import ObjectSelector, SelectorExpression, SelectorOperator
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.seniority import Seniority, seniority

ANYWHERE = "*"

_NO_VALUE = (SelectorOperator.EXISTS, SelectorOperator.DOES_NOT_EXIST)
_SOME_VALUES = (SelectorOperator.IN, SelectorOperator.NOT_IN)
_NUMERIC = (SelectorOperator.GREATER_THAN, SelectorOperator.LESS_THAN)


class Head(msgspec.Struct, frozen=True, gc=False):
    """What selectors look at, and the age by which the selected are ordered."""

    ref: Ref
    labels: dict[str, str]
    seniority: Seniority


def head_of(_: Ref, resource: Resource) -> Head:
    """The head of *resource*."""
    return Head(resource.ref, resource.metadata.labels, seniority(resource))


def namespaces_of(selector: ObjectSelector, home: str) -> tuple[str, ...]:
    """The namespaces that *selector* of an object in *home* looks into; `ANYWHERE` alone for all."""
    if ANYWHERE in selector.namespaces:
        return (ANYWHERE,)
    return tuple(dict.fromkeys(selector.namespaces)) or (home,)


def selects_labels(selector: ObjectSelector, labels: Mapping[str, str]) -> bool:
    """Whether *selector* selects an object with *labels*, wherever it is. With a problem it selects nothing."""
    if selector.labels and selector.expressions:
        return False
    return all(labels.get(name) == value for name, value in selector.labels.items()) and all(
        _holds(expression, labels) for expression in selector.expressions
    )


def selects_object(selector: ObjectSelector, home: str, ref: Ref, labels: Mapping[str, str]) -> bool:
    """Whether *selector* of an object in namespace *home* selects *ref*, which has *labels*."""
    namespaces = namespaces_of(selector, home)
    return (ref.namespace in namespaces or ANYWHERE in namespaces) and selects_labels(selector, labels)


def selector_problems(selector: ObjectSelector, path: str) -> Iterator[Problem]:
    """What is wrong with *selector*, which is at field path *path*."""
    if selector.labels and selector.expressions:
        yield Problem(path, "Contradiction", "has labels and expressions: write the labels as expressions too")
    for i, expression in enumerate(selector.expressions):
        at, operator, count = f"{path}.expressions[{i}]", expression.operator, len(expression.values)
        if not expression.key:
            yield Problem(f"{at}.key", "MissingField", "needs the key of a label")
        if operator in _NO_VALUE:
            if count:
                yield Problem(f"{at}.values", "Contradiction", f"{operator.value} compares with no value")
        elif operator in _SOME_VALUES:
            if not count:
                yield Problem(f"{at}.values", "MissingField", f"{operator.value} needs at least one value")
        elif count != 1:
            yield Problem(f"{at}.values", "MissingField", f"{operator.value} needs exactly one value, and has {count}")
        elif operator in _NUMERIC and _number(expression.values[0]) is None:
            message = f"{operator.value} compares whole numbers, and {expression.values[0]!r} is none"
            yield Problem(f"{at}.values", "InvalidValue", message)


def _holds(expression: SelectorExpression, labels: Mapping[str, str]) -> bool:
    found, values = labels.get(expression.key), expression.values
    match expression.operator:
        case SelectorOperator.EXISTS:
            return found is not None
        case SelectorOperator.DOES_NOT_EXIST:
            return found is None
        case SelectorOperator.NOT_EQUALS | SelectorOperator.NOT_IN:
            return found not in values
        case SelectorOperator.EQUALS | SelectorOperator.DOUBLE_EQUALS | SelectorOperator.IN:
            return found in values
    number, bound = _number(found or ""), _number(values[0] if values else "")
    if number is None or bound is None:
        return False
    return number > bound if expression.operator is SelectorOperator.GREATER_THAN else number < bound


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None

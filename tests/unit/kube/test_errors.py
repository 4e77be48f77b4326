"""From an answer to an exception."""

from __future__ import annotations

import json

import pytest

from isthmus.kube.errors import Cause, Invalid, KubeError, NotFound, Unavailable, error_for

from .peer import status


def test_causes_name_the_fields() -> None:
    """What breaks the schema is told field by field."""
    causes = [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.hosts"}]

    error = error_for(422, json.dumps(status(422, "Invalid", "is invalid", causes=causes)).encode(), "apply")

    assert isinstance(error, Invalid)
    assert error.causes == (Cause("spec.hosts", "FieldValueRequired", "Required value"),)


def test_objects_are_not_quoted() -> None:
    """A server that quotes the object it refused does not make us log a Secret."""
    quoted = '"" is invalid: patch: Invalid value: "{\\"data\\":{\\"key\\":\\"hidden\\"}}": cannot unmarshal'
    body = status(422, "Invalid", quoted, causes=[{"reason": "x", "field": "patch", "message": quoted}])

    error = error_for(422, json.dumps(body).encode(), "patch Secret a/b")

    assert str(error) == 'patch Secret a/b: "" is invalid: patch: Invalid value: {…}: cannot unmarshal (422)'
    assert "hidden" not in error.causes[0].message


def test_long_texts_are_cut() -> None:
    """An error fits a log line, whoever answered."""
    assert len(str(error_for(400, json.dumps(status(400, "BadRequest", "x" * 99999)).encode(), "get"))) < 1100
    assert len(str(error_for(502, b"<html>" * 9999, "get"))) < 400


@pytest.mark.parametrize(
    ("body", "of_kind"),
    [
        (b"404 page not found", True),
        (json.dumps(status(404, "NotFound", "the server could not find the requested resource")).encode(), True),
        (json.dumps(status(404, "NotFound", 'configmaps "a" not found')).encode(), False),
    ],
)
def test_missing_kind_and_missing_object(body: bytes, of_kind: bool) -> None:
    """A CRD that is not installed is told apart from an object that is not there."""
    error = error_for(404, body, "get")

    assert isinstance(error, NotFound)
    assert error.of_kind is of_kind


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"\xff\xfe", b'{"kind":"Status","details":null}'])
@pytest.mark.parametrize("code", [418, 503])
def test_any_body_makes_an_error(code: int, body: bytes) -> None:
    """No answer is too odd to be told."""
    error = error_for(code, body, "get")

    assert type(error) is (KubeError if code == 418 else Unavailable)
    assert str(error).startswith("get: ")
    assert str(error).endswith(f"({code})")


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_retry_after(text: str, seconds: float | None) -> None:
    """Seconds are taken, dates are not: API servers send none."""
    assert error_for(429, b"", "get", text).retry_after == seconds

"""What the embedded API server refuses, in the words and codes of the real one.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/ and the real server's answers,
compared by tests/contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from isthmus.embedded.resources import Resource


class Cause(msgspec.Struct, frozen=True):
    """One fault of an invalid object: its field path, the reason word and the message behind the path."""

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """A refusal that goes to the client as a Status object."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        """The Status object of the answer."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        status["code"] = self.code
        return status


def _details(resource: Resource, name: str, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    details.update(more)
    return details


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: Resource, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def stale(resource: Resource, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, name, why)


def apply_conflict(message: str, causes: Sequence[Cause]) -> ApiError:
    return ApiError(409, "Conflict", message, {"causes": [_cause(cause) for cause in causes]})


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 with every cause, as the real server joins them."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    what = resource.kind if not resource.group else f"{resource.kind}.{resource.group}"
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details |= {"kind": resource.kind, "causes": [_cause(cause) for cause in causes]}
    return ApiError(422, "Invalid", f'{what} "{name}" is invalid: {joined}', details)


def unversioned(resource: Resource, name: str) -> ApiError:
    """422: the kind is replaced with its resourceVersion only."""
    text = "Invalid value: 0: must be specified for an update"
    details = _details(resource, name, causes=[_cause(Cause("metadata.resourceVersion", "FieldValueInvalid", text))])
    message = f'{resource.qualified} "{name}" is invalid: metadata.resourceVersion: {text}'
    return ApiError(422, "Invalid", message, details)


def _cause(cause: Cause) -> dict[str, str]:
    return {"reason": cause.reason, "message": cause.message, "field": cause.field}


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden(resource: Resource, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    details = _details(resource, name, **({"causes": [_cause(cause) for cause in causes]} if causes else {}))
    return ApiError(403, "Forbidden", f'{resource.qualified} "{name}" is forbidden: {why}', details)


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unsupported_media_type(given: str, accepted: Sequence[str]) -> ApiError:
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return ApiError(415, "UnsupportedMediaType", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def too_large() -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")


def larger_than_etcd() -> ApiError:
    return ApiError(500, "", "etcdserver: request is too large")


def version_too_large(given: int, current: int) -> ApiError:
    message = f"Too large resource version: {given}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return ApiError(504, "Timeout", f"Timeout: {message}", {"causes": [cause], "retryAfterSeconds": 1})

"""What can go wrong when we talk to an API server.

Every message names what was asked, the cluster that was asked, and what it said. The tree:

    KubeError                 anything below; also answers that have no class of their own
    ├── KubeconfigError       no connection can be made from the kubeconfig, service account or exec plug-in
    ├── Unavailable           no answer in time: connection failed, or 429 and 5xx until patience ran out
    │   └── Untrusted         TLS: one side does not accept the other's certificate; not worth a retry
    ├── BadRequest            400
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404: the object, or (`.of_kind`) its kind
    ├── AlreadyExists         409 on create
    ├── Conflict              409: other field managers own fields, or a precondition does not hold
    ├── Gone                  410: the resource version is too old to go on from
    ├── TooLarge              413, or etcd's limit
    └── Invalid               422, with the fields at fault in `.causes`
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

BODY_IN_MESSAGE = 300  # characters of an answer that is no Status, enough to recognise a proxy's error page
LONGEST_MESSAGE = 1000  # what of a server's sentence is worth a log line
# The API server quotes a whole object when a patch does not fit it, and that may be a Secret.
QUOTED_OBJECT = re.compile(r'Invalid value: "\{.*\}"', re.DOTALL)
MANAGER = re.compile(r'conflict with "([^"]*)"')


class Cause(msgspec.Struct, frozen=True):
    """One reason of a refusal, as in ``status.details.causes``."""

    field: str
    reason: str
    message: str


class KubeError(Exception):
    """An API server could not be reached, or refused."""

    def __init__(
        self,
        message: str,
        *,
        code: int = 0,
        reason: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.causes = causes
        self.retry_after = retry_after


class KubeconfigError(KubeError):
    """The kubeconfig, service account or exec plug-in gives no usable connection."""


class Unavailable(KubeError):
    """No usable answer within the client's patience."""


class Untrusted(Unavailable):
    """The TLS handshake failed over a certificate."""


class BadRequest(KubeError):
    """The request itself is malformed."""


class Unauthorized(KubeError):
    """The server does not know who we are."""


class Forbidden(KubeError):
    """The server knows who we are and says no."""


class NotFound(KubeError):
    """The object does not exist, or the server does not serve its kind."""

    @property
    def of_kind(self) -> bool:
        """Whether the kind is what is missing: its CRD is not installed.

        Source: apimachinery names the object in the Status of a missing object; a missing path has no such Status.
        """
        return self.reason != "NotFound" or "could not find the requested resource" in str(self)


class AlreadyExists(KubeError):
    """An object of that name is there. After a connection broke it may be the one we just asked for."""


class Conflict(KubeError):
    """Somebody else's write stands against ours.

    *managers* and *fields* tell which field managers own what we tried to apply; both are empty when a resource
    version or uid did not match.
    """

    @property
    def managers(self) -> tuple[str, ...]:
        """Field managers in conflict with us, sorted."""
        return tuple(sorted({found[1] for cause in self.causes if (found := MANAGER.match(cause.message))}))

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths of the fields in conflict, such as ``.spec.hosts``, sorted."""
        return tuple(sorted({cause.field for cause in self.causes if cause.reason == "FieldManagerConflict"}))


class Gone(KubeError):
    """The resource version or continue token is no longer known."""


class TooLarge(KubeError):
    """The object exceeds what the API server or its etcd takes."""


class Invalid(KubeError):
    """The object breaks its schema or an admission rule; `causes` name the fields."""


CLASSES: dict[int, type[KubeError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    422: Invalid,
    429: Unavailable,
}
# What etcd and the API server's etcd client say; both arrive as a 500. Source: etcd rpctypes.ErrRequestTooLarge, gRPC.
TOO_LARGE = ("request is too large", "trying to send message larger than max")


def error_for(code: int, body: bytes, about: str, retry_after: str = "") -> KubeError:
    """The exception for answer *code* with *body* to the request that *about* describes."""
    return error_from_status(status_of(code, body), about, code=code, retry_after=retry_after)


def status_of(code: int, body: bytes) -> dict[str, Any]:
    """The ``Status`` object in *body*, or one made up from text that is none (a proxy's error page)."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return status
    text = " ".join(body.decode(errors="replace").split())[:BODY_IN_MESSAGE]
    return {"code": code, "message": text or "no explanation"}


def error_from_status(status: dict[str, Any], about: str, *, code: int = 0, retry_after: str = "") -> KubeError:
    """The exception for a ``Status`` object, as an answer has it or an ERROR event of a watch."""
    code = code or int(status.get("code") or 0)
    reason = str(status.get("reason") or "")
    message = _readable(status.get("message")) or reason or "no explanation"
    details = status.get("details") or {}
    causes = tuple(
        Cause(str(cause.get("field") or ""), str(cause.get("reason") or ""), _readable(cause.get("message")))
        for cause in details.get("causes") or ()
    )
    if any(text in message for text in TOO_LARGE):
        found: type[KubeError] = TooLarge
    elif reason == "AlreadyExists":
        found = AlreadyExists
    elif code >= 500:
        found = Unavailable
    else:
        found = CLASSES.get(code, KubeError)
    return found(
        f"{about}: {message} ({code})",
        code=code,
        reason=reason,
        causes=causes,
        retry_after=seconds(retry_after) or seconds(str(details.get("retryAfterSeconds") or "")),
    )


def _readable(text: str | None) -> str:
    return QUOTED_OBJECT.sub("Invalid value: {…}", str(text or ""))[:LONGEST_MESSAGE]


def seconds(text: str) -> float | None:
    """A ``Retry-After`` in seconds, which is the only form API servers send; anything else counts as not said."""
    return float(text) if text.isdecimal() else None

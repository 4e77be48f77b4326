"""Following the objects of one kind through whatever happens to the connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from isthmus.kube import urls
from isthmus.kube.backoff import BackOff
from isthmus.kube.errors import Gone, KubeError, Unavailable
from isthmus.kube.events import Broken, EventReader, ObjectList, Replaced, WatchEvent
from isthmus.kube.session import Session
from isthmus.model.ref import Kind

LONGEST_WAIT = 30.0  # seconds before a broken watch is tried again
QUICK_END = 1.0  # a watch that the server ends sooner than this, in seconds, is not opened again at once


class Lister(Protocol):
    """How the complete state is read."""

    async def __call__(self, kind: Kind, namespace: str, *, labels: str, fields: str) -> ObjectList: ...


async def follow(
    session: Session, lister: Lister, kind: Kind, namespace: str, *, labels: str, fields: str
) -> AsyncGenerator[WatchEvent, None]:
    """List, then watch from there, again and again.

    | what happens                                    | what follows                                         |
    |-------------------------------------------------|------------------------------------------------------|
    | the server ends the watch                       | resume from the last version seen, bookmarks counted |
    | the connection breaks, also amid an object      | wait, resume                                         |
    | 429 or 5xx instead of a stream                  | wait, resume                                         |
    | ... and the server came back with an old state  | list again                                           |
    | 410 instead of a stream, or any ERROR event     | wait, list again                                     |
    | another refusal, before the first list          | raise                                                |
    | another refusal, later                          | wait, list again; raise after the session's patience |

    The last row is patient because a restarting API server refuses for a moment what it allows afterwards, and a CRD
    may be replaced under us.
    """
    about = f"watch {urls.called(kind, namespace)}"
    path, selection = urls.collection(kind, namespace), urls.selection(labels, fields)
    back_off = BackOff(longest=LONGEST_WAIT)
    reader: EventReader | None = None
    served = False
    broken = False
    refused_at: float | None = None
    while True:
        try:
            if reader is None:
                listed = await lister(kind, namespace, labels=labels, fields=fields)
                reader = EventReader(listed.resource_version, session.at(about))
                served = True
                yield Replaced(listed.items)
            elif broken and await _went_back(session, path, about, reader.resource_version):
                reader, broken = None, False
                continue
            broken = False
            reader.restart()
            opened = time.monotonic()
            params = {**selection, "resourceVersion": reader.resource_version}
            async with aclosing(session.stream(path, about, params=params)) as chunks:
                async for chunk in chunks:
                    refused_at = None
                    for event in reader.feed(chunk):
                        yield event
                    if chunk:
                        back_off.reset()
            wait = 0.0 if time.monotonic() - opened > QUICK_END else back_off.wait()
        except Gone:
            reader = None
            wait = back_off.wait()
        except Unavailable as error:
            broken = True
            if reader is not None and reader.ended_by_error:
                reader = None
            wait = back_off.wait(error.retry_after)
            _log_interruption(session, kind, error, wait)
        except Broken as error:
            broken = True
            wait = back_off.wait()
            _log_interruption(session, kind, error, wait)
        except KubeError as error:
            refused_at = refused_at or time.monotonic()
            if not served or time.monotonic() - refused_at > session.patience:
                raise
            reader = None
            wait = back_off.wait(error.retry_after)
            _log_interruption(session, kind, error, wait)
        await asyncio.sleep(wait)


async def _went_back(session: Session, path: str, about: str, seen: str) -> bool:
    """Whether the server has not reached version *seen*, which it told us before: it came back from a backup.

    A kube-apiserver tells a watch from a version in its future nothing until it gets there, so changes would be lost.
    Versions compare as numbers: https://kep.k8s.io/5504
    """
    page = await session.json("GET", path, about, params={"limit": "1"})
    now = str(page["metadata"]["resourceVersion"])
    return now.isdecimal() and seen.isdecimal() and int(now) < int(seen)


def _log_interruption(session: Session, kind: Kind, error: Exception, wait: float) -> None:
    import structlog  # 0.3 s, which a command that only asks need not spend

    structlog.get_logger("isthmus.kube").warning(
        "watch interrupted",
        cluster=session.connection.name,
        kind=kind.kind,
        error=str(error),
        wait_seconds=round(wait, 2),
    )

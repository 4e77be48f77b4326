"""Watches that outlive everything: also a kind that the cluster does not serve yet, or not to us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from isthmus.kube import KubeClient, KubeError, WatchEvent
from isthmus.model.ref import Kind

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 5.0  # how long a CRD that was just installed goes unnoticed

log = structlog.get_logger("isthmus.watch")


async def follow(
    kube: KubeClient,
    kind: Kind,
    handle: Callable[[WatchEvent], None],
    *,
    namespace: str = "",
    labels: str = "",
    fields: str = "",
    refused: Callable[[KubeError], None] = lambda error: None,
) -> None:
    """Give every event of *kind* to *handle*, for ever.

    When the server refuses (no CRD, no right), *refused* is told and the watch is tried again with growing pauses;
    nothing was *Replaced* by then, so nobody takes the refusal for an empty state.
    """
    wait = FIRST_WAIT_SECONDS
    reason = ""
    while True:
        try:
            async for event in kube.watch(kind, namespace, labels=labels, fields=fields):
                wait, reason = FIRST_WAIT_SECONDS, ""
                handle(event)
        except KubeError as error:
            refused(error)
            if str(error) != reason:
                reason = str(error)
                log.warning("watch refused", kind=kind.kind, api_version=kind.api_version, error=reason)
        await asyncio.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)

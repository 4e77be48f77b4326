"""How many endpoints a Destination has ready, by their labels: listed, or counted where they are too many to list.

Written by discovery, read by translation, so the spelling of the annotations has its home between them.
"""

from __future__ import annotations

import msgspec

from isthmus.api.discovery import Destination

MAX_LISTED_ENDPOINTS = 1000
"""Endpoints that a Destination lists at most, as many as Kubernetes' own Endpoints object."""

OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
"""Annotation that is ``truncated`` where endpoints are left out, as on Kubernetes' own Endpoints objects."""

READY_ENDPOINTS = "isthmus.dev/ready-endpoints"
"""Annotation with the count of all ready endpoints by labels, only where endpoints are left out."""

Labels = tuple[tuple[str, str], ...]
"""Sorted label pairs."""


class _Count(msgspec.Struct, frozen=True):
    labels: dict[str, str]
    ready: int


def write_counts(counts: dict[Labels, int]) -> str:
    """The value of `READY_ENDPOINTS` for *counts*."""
    rows = [_Count(labels=dict(labels), ready=ready) for labels, ready in sorted(counts.items())]
    return msgspec.json.encode(rows).decode()


def ready_endpoints(destination: Destination) -> dict[Labels, int]:
    """Ready endpoints of *destination* by their labels, whether all of them are listed or not.

    Counts of more than 1,000 endpoints are rounded to three digits. Empty for what is no Kubernetes service.
    """
    written = destination.metadata.annotations.get(READY_ENDPOINTS)
    if written is not None:
        try:
            return {
                tuple(sorted(row.labels.items())): row.ready for row in msgspec.json.decode(written, type=list[_Count])
            }
        except msgspec.MsgspecError:
            pass  # somebody else wrote it; what is listed still tells the shares
    counts: dict[Labels, int] = {}
    service = destination.spec.kube_service
    for subset in service.endpoint_subsets if service is not None else ():
        for endpoint in subset.endpoints:
            labels = tuple(sorted(endpoint.labels.items()))
            counts[labels] = counts.get(labels, 0) + 1
    return counts

"""What the box is told when it starts, and what it answers."""

from __future__ import annotations

import msgspec


class Order(msgspec.Struct, frozen=True):
    """What the supervisor is started with, as JSON on its command line."""

    directory: str
    """The lab's folder on the host: logs."""
    doors: dict[str, int]
    """Per cluster an inherited socket that listens on the host's loopback: connections to the API server."""
    report_fd: int
    """Where progress goes: a JSON `Report` per line."""
    flat: bool = False


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the start."""

    text: str
    ready: bool = False
    failed: bool = False
    kubeconfig: str = ""
    """With *ready*: the kubeconfig as seen from the host."""

"""`meshctl demo`."""

from __future__ import annotations


def demo() -> None:
    """Three clusters on this machine, federated."""

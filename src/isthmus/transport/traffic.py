"""Counters of one link, for the programs' metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """What has crossed the link of one cluster, over all its connections; seen from the end that counts.

    Bytes are those of gRPC messages. *generations_sent* and *generations_acknowledged* are of the present connection:
    equal when the other side has taken everything.
    """

    connected: bool = False
    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    records_in: int = 0
    records_out: int = 0
    generations_in: int = 0
    generations_sent: int = 0
    generations_acknowledged: int = 0

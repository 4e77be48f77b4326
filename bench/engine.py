"""The engine alone: from events as the relay delivers them to the desired state as it takes it.

``python -m bench.engine SERVICES`` measures one size in a process of its own and prints a JSON object a line.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from bench import fleet
from isthmus.api.base import Resource
from isthmus.relay import Publication
from isthmus.relay.session import Session
from isthmus.server.collector import tame_garbage_collector
from isthmus.translate import Engine
from isthmus.transport.codec import encode

CHANGES = 1000
FANOUTS = 5
Row = dict[str, object]


class Server:
    """What the server does with a record: decode, translate, encode and publish what changed."""

    def __init__(self, clusters: Sequence[str] = fleet.CLUSTERS) -> None:
        self.engine = Engine()
        self.publications = {cluster: Publication() for cluster in clusters}
        self._decoders: dict[type[Resource], Callable[[bytes], Resource]] = {}

    def receive(self, events: Iterable[tuple[type[Resource], bytes]]) -> dict[str, dict[str, bytes | None]]:
        """Take *events* in one run; the delta by cluster, as published."""
        for kind, payload in events:
            decode = self._decoders.get(kind)
            if decode is None:
                decode = self._decoders[kind] = msgspec.json.Decoder(kind).decode
            self.engine.set(decode(payload))
        delta: dict[str, dict[str, bytes | None]] = {}
        for key, output in self.engine.run().outputs.items():
            delta.setdefault(key.cluster, {})[str(key.object)] = output.payload() if output else None
        for cluster, changes in delta.items():
            self.publications[cluster].publish(changes, complete=True)
        return delta


def encoded(resources: Iterable[Resource]) -> list[tuple[type[Resource], bytes]]:
    """*resources* as an agent sends them."""
    return [(type(found), msgspec.json.encode(found)) for found in resources]


def measure(services: int) -> Iterator[Row]:
    """All rows for *services* services on each of two clusters."""
    tame_garbage_collector()
    server = Server()
    size: Row = {"services": services, "clusters": len(fleet.CLUSTERS)}
    yield {**cold("cold", server, fleet.fleet(services)), **size}

    chance = random.Random(services)
    numbers = [chance.randrange(services) for _ in range(CHANGES)]
    yield {**timed("change-service", server, _changed_ports(numbers)), **size}
    yield {**timed("moved-pods", server, _moved_pods(numbers)), **size}
    yield {**timed("change-policy", server, _selector_joins_and_leaves(numbers)), **size}
    gateways = ([fleet.gateway("cluster1", f"198.51.100.{i + 1}")] for i in range(FANOUTS))
    yield {**timed("fanout-gateway", server, gateways), **size}
    yield {**timed("new-service", server, ([fleet.service("cluster1", services + i)] for i in range(CHANGES))), **size}


def cold(name: str, server: Server, resources: Iterable[Resource]) -> Row:
    """Time from the first event of *resources*, in one batch, to all that is desired published."""
    events = encoded(resources)
    began = time.perf_counter()
    server.receive(events)
    seconds = time.perf_counter() - began
    return {
        "name": name,
        "seconds": round(seconds, 3),
        "objects": sum(len(publication) for publication in server.publications.values()),
        "recomputed": server.engine.evaluations,
        "relay_bytes": sum(cold_bytes(publication) for publication in server.publications.values()),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _changed_ports(numbers: list[int]) -> Iterator[list[Resource]]:
    for i, number in enumerate(numbers):
        yield [fleet.service("cluster1", number, port=10000 + i)]


def _moved_pods(numbers: list[int]) -> Iterator[list[Resource]]:
    # With the port of the last change, so that nothing but addresses changes.
    ports = {number: 10000 + i for i, number in enumerate(numbers)}
    for i, number in enumerate(numbers):
        yield [fleet.service("cluster1", number, port=ports[number], shift=i + 1)]


def _selector_joins_and_leaves(numbers: list[int]) -> Iterator[list[Resource]]:
    for i, number in enumerate(numbers):
        # Leave and, with the same number a step later, join again.
        yield [fleet.service("cluster1", numbers[i - i % 2] if i % 2 else number, federated=bool(i % 2))]


def timed(name: str, server: Server, batches: Iterable[Sequence[Resource]]) -> Row:
    """Time from event in to delta published, for each of *batches*; the other figures are means per batch."""
    seconds: list[float] = []
    changed = sent = 0
    before = server.engine.evaluations
    for batch in batches:
        events = encoded(batch)
        began = time.perf_counter()
        delta = server.receive(events)
        seconds.append(time.perf_counter() - began)
        for part in delta.values():
            changed += len(part)
            sent += sum(len(key) + len(payload or b"") for key, payload in part.items())
    milliseconds = sorted(1000 * second for second in seconds)
    count = len(milliseconds)
    return {
        "name": name,
        "p50_ms": round(statistics.median(milliseconds), 3),
        "p99_ms": round(milliseconds[min(count - 1, count * 99 // 100)], 3),
        "recomputed": round((server.engine.evaluations - before) / count, 1),
        "objects": round(changed / count, 1),
        "relay_bytes": round(sent / count),
    }


def cold_bytes(publication: Publication) -> int:
    """Bytes of the frames that bring an agent without any record to *publication*."""
    agent = Publication()
    agent.publish({}, complete=True)
    ends = [
        Session("cluster", version="bench", publication=published, held={}, wake=lambda: None)
        for published in (publication, agent)
    ]
    total, busy = 0, True
    while busy:
        busy = False
        for sender, receiver in (ends, ends[::-1]):
            while (frame := sender.next_frame()) is not None:
                total += encode(frame).ByteSize()
                receiver.receive(frame)
                busy = True
            if receiver.next_delta() is not None:
                receiver.applied()
                busy = True
    for end in ends:
        end.close()
    return total


def main() -> None:
    for row in measure(int(sys.argv[1])):
        sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

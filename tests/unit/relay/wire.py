"""Two sessions back to back, one frame at a time, with a link that can be cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from isthmus.relay import Delta, Publication
from isthmus.relay.frames import WINDOW_BYTES, Changes, Compare, Entry, Frame, Part, Table, Want
from isthmus.relay.records import digest_of
from isthmus.relay.session import Session


class End:
    """One end: what it publishes, what it holds from the other, and every state it published."""

    def __init__(self, *, held: Mapping[str, bytes] | None = None) -> None:
        self.publication = Publication()
        self.history: list[dict[str, bytes]] = [{}]
        self.held: dict[str, bytes] = dict(held or {})
        self.deltas: list[Delta] = []
        self.session: Session | None = None
        self.inbox: deque[Frame] = deque()
        self.wakes = 0

    @property
    def published(self) -> dict[str, bytes]:
        return {key: record.payload for key, record in self.publication.records.items()}

    def publish(self, changes: Mapping[str, bytes | None], *, complete: bool = True) -> None:
        self.publication.publish(changes, complete=complete)
        self.history.append(self.published)

    def open(self, window: int) -> None:
        digests = {key: digest_of(key, payload) for key, payload in self.held.items()}
        self.session = Session(
            "c1", version="test", publication=self.publication, held=digests, wake=self._wake, window=window
        )

    def close(self) -> None:
        assert self.session is not None
        self.session.close()
        self.session = None
        self.inbox.clear()

    def apply(self) -> bool:
        """Apply one generation, if there is one."""
        assert self.session is not None
        delta = self.session.next_delta()
        if delta is None:
            return False
        for key, payload in delta.changes.items():
            if payload is None:
                del self.held[key]
            else:
                self.held[key] = payload
        self.deltas.append(delta)
        self.session.applied()
        return True

    def _wake(self) -> None:
        self.wakes += 1


class Link:
    """Carries frames between two ends, and counts what they would weigh."""

    def __init__(self, left: End, right: End, *, window: int = WINDOW_BYTES) -> None:
        self.ends = (left, right)
        self.window = window
        self.weight = 0
        self.frames: list[Frame] = []
        self.connect()

    def connect(self) -> None:
        self.weight = 0
        self.frames = []
        for end in self.ends:
            end.open(self.window)

    def cut(self) -> None:
        for end in self.ends:
            end.close()

    def send(self, sender: int) -> bool:
        """Put one frame of *sender* (0 or 1) on the wire, if it has one."""
        session = self.ends[sender].session
        assert session is not None
        frame = session.next_frame()
        if frame is None:
            return False
        self.weight += weight_of(frame)
        self.frames.append(frame)
        self.ends[1 - sender].inbox.append(frame)
        return True

    def deliver(self, receiver: int) -> bool:
        """Let *receiver* (0 or 1) have one frame from the wire, if there is one."""
        end = self.ends[receiver]
        if not end.inbox:
            return False
        assert end.session is not None
        end.session.receive(end.inbox.popleft())
        return True

    def settle(self) -> None:
        """Carry and apply until nothing moves."""
        moves = (self.send, self.deliver, self.apply)
        while any(move(end) for move in moves for end in (0, 1)):
            pass

    def apply(self, end: int) -> bool:
        """Let *end* (0 or 1) apply one generation, if one has arrived."""
        return self.ends[end].apply()

    def reconnect(self) -> None:
        self.cut()
        self.connect()
        self.settle()


def weight_of(frame: Frame) -> int:
    """About as many bytes as *frame* has on the wire."""
    match frame:
        case Changes():
            entries = sum(len(e.key) + len(e.payload) + 24 for e in frame.entries)
            return 8 + entries + sum(len(key) + 3 for key in frame.removed) + len(frame.confirmed)
        case Part():
            return len(frame.key) + len(frame.slice) + 28
        case Table():
            return len(frame.differing) + len(frame.digests) + 8
        case Compare():
            return len(frame.buckets) + 8
        case Want():
            return len(frame.missing) + len(frame.surplus) + 8
        case _:
            return 24


def records_in(frames: list[Frame]) -> list[Entry]:
    return [entry for frame in frames if isinstance(frame, Changes) for entry in frame.entries]

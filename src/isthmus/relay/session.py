"""One stream between an agent and the server, both of which publish and subscribe."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from isthmus.relay.frames import (
    PROTOCOL,
    WINDOW_BYTES,
    Ack,
    Beat,
    Compare,
    Frame,
    Hello,
    ProtocolFault,
    Resync,
    Want,
)
from isthmus.relay.publication import Delta, Publication
from isthmus.relay.receiver import Receiver
from isthmus.relay.sender import Sender


class Session:
    """Either end of the stream of *cluster*.

    *held* maps the keys of what is held from the other side to record digests. Whoever drives the session passes in the
    frames that arrive, sends what `next_frame` returns, and applies what `next_delta` returns; after each of these, and
    when *wake* is called, both may have something new.
    """

    def __init__(
        self,
        cluster: str,
        *,
        version: str,
        publication: Publication,
        held: Mapping[str, bytes],
        wake: Callable[[], None],
        window: int = WINDOW_BYTES,
    ) -> None:
        self._cluster = cluster
        self._hello: Hello | None = Hello(PROTOCOL, cluster, version)
        self._sender = Sender(publication, wake, window=window)
        self._receiver = Receiver(held, window=window)
        self._beat_due = False
        self.peer: Hello | None = None
        self.frames_received = 0

    @property
    def generations_sent(self) -> int:
        """How many generations were sent to the end."""
        return self._sender.generations_sent

    @property
    def generations_acknowledged(self) -> int:
        """The last generation that the other side has applied."""
        return self._sender.generations_acknowledged

    @property
    def records_sent(self) -> int:
        """How many records were sent with their payload."""
        return self._sender.records_sent

    @property
    def records_received(self) -> int:
        """How many records arrived with their payload."""
        return self._receiver.records_received

    def close(self) -> None:
        """Let the publication forget this stream."""
        self._sender.close()

    def receive(self, frame: Frame) -> None:
        """Take a frame of the other side. Raises `ProtocolFault`."""
        self.frames_received += 1
        if self.peer is None:
            self.peer = check_hello(frame, self._cluster)
        elif isinstance(frame, Hello):
            raise ProtocolFault("the peer says hello twice")
        elif isinstance(frame, Beat):
            pass
        elif isinstance(frame, Compare | Want | Ack | Resync):
            self._sender.receive(frame)
        else:
            self._receiver.receive(frame)

    def next_frame(self) -> Frame | None:
        """What to send next. Answers go before records."""
        if self._hello is not None:
            hello, self._hello = self._hello, None
            return hello
        if self._beat_due:
            self._beat_due = False
            return Beat()
        return self._receiver.next_frame() or self._sender.next_frame()

    def beat(self) -> None:
        """Let the other side know, with the next frame, that this one is alive."""
        self._beat_due = True

    def next_delta(self) -> Delta | None:
        """The generation to apply now, if one has arrived in full."""
        return self._receiver.next_delta()

    def applied(self) -> None:
        """What `next_delta` returned has been applied."""
        self._receiver.applied()


def check_hello(frame: Frame, cluster: str) -> Hello:
    """The peer's first frame on the stream of *cluster*. Raises `ProtocolFault` if it cannot be followed by others."""
    if not isinstance(frame, Hello):
        raise ProtocolFault("the peer does not say hello first")
    if frame.protocol != PROTOCOL:
        raise ProtocolFault(
            f"the peer (version {frame.version}) speaks relay protocol {frame.protocol}, this end {PROTOCOL}: "
            "bring agent and server to the same version"
        )
    if frame.cluster != cluster:
        raise ProtocolFault(f"the peer speaks for cluster {frame.cluster} on the stream of {cluster}")
    return frame

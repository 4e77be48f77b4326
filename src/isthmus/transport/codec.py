"""Relay frames to and from protobuf."""

from __future__ import annotations

from isthmus.relay import frames
from isthmus.wire import relay_pb2 as wire


def encode(frame: frames.Frame) -> wire.Frame:
    """*frame* as a message."""
    match frame:
        case frames.Hello():
            hello = wire.Hello(protocol=frame.protocol, cluster=frame.cluster, version=frame.version)
            return wire.Frame(hello=hello)
        case frames.Beat():
            return wire.Frame(beat=wire.Beat())
        case frames.Offer():
            return wire.Frame(offer=wire.Offer(root=frame.root, complete=frame.complete))
        case frames.Compare():
            return wire.Frame(compare=wire.Compare(bits=frame.bits, buckets=frame.buckets))
        case frames.Table():
            table = wire.Table(differing=frame.differing, digests=frame.digests, last=frame.last)
            return wire.Frame(table=table)
        case frames.Want():
            return wire.Frame(want=wire.Want(missing=frame.missing, surplus=frame.surplus, last=frame.last))
        case frames.Part():
            part = wire.Part(key=frame.key, digest=frame.digest, total=frame.total, slice=frame.slice)
            return wire.Frame(part=part)
        case frames.Changes():
            changes = wire.Changes(
                records=[wire.Record(key=e.key, digest=e.digest, payload=e.payload) for e in frame.entries],
                removed=frame.removed,
                confirmed=frame.confirmed,
                end=frame.end,
                generation=frame.generation,
                complete=frame.complete,
            )
            return wire.Frame(changes=changes)
        case frames.Ack():
            return wire.Frame(ack=wire.Ack(taken=frame.taken, applied=frame.applied))
        case frames.Resync():
            return wire.Frame(resync=wire.Resync(reason=frame.reason))


def decode(message: wire.Frame) -> frames.Frame:
    """The frame in *message*. Raises `ProtocolFault` for a kind of frame that this version does not know."""
    match message.WhichOneof("of"):
        case "hello":
            return frames.Hello(message.hello.protocol, message.hello.cluster, message.hello.version)
        case "beat":
            return frames.Beat()
        case "offer":
            return frames.Offer(message.offer.root, message.offer.complete)
        case "compare":
            return frames.Compare(message.compare.bits, message.compare.buckets)
        case "table":
            return frames.Table(message.table.differing, message.table.digests, message.table.last)
        case "want":
            return frames.Want(message.want.missing, message.want.surplus, message.want.last)
        case "part":
            part = message.part
            return frames.Part(part.key, part.digest, part.total, part.slice)
        case "changes":
            changes = message.changes
            return frames.Changes(
                tuple(frames.Entry(record.key, record.digest, record.payload) for record in changes.records),
                tuple(changes.removed),
                changes.confirmed,
                changes.end,
                changes.generation,
                changes.complete,
            )
        case "ack":
            return frames.Ack(message.ack.taken, message.ack.applied)
        case "resync":
            return frames.Resync(message.resync.reason)
        case _:
            raise frames.ProtocolFault("the peer sends a kind of frame that this version does not know")

"""What an agent and the server tell each other, as machines that know no sockets, clocks or kinds.

Either end publishes a keyed set of records and subscribes to the other's; `isthmus.transport` carries the frames.
"""

from isthmus.relay.publication import Delta, Publication, Subscriber
from isthmus.relay.records import MAX_RECORD_BYTES, RecordTooLarge

__all__ = ["MAX_RECORD_BYTES", "Delta", "Publication", "RecordTooLarge", "Subscriber"]

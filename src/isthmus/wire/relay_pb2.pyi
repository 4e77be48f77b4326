from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IssueRequest(_message.Message):
    __slots__ = ("cluster", "token", "csr")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    token: str
    csr: bytes
    def __init__(self, cluster: _Optional[str] = ..., token: _Optional[str] = ..., csr: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class IssueResponse(_message.Message):
    __slots__ = ("chain", "ca")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    CA_FIELD_NUMBER: _ClassVar[int]
    chain: bytes
    ca: bytes
    def __init__(self, chain: _Optional[bytes] = ..., ca: _Optional[bytes] = ...) -> None: ...

class ToServer(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class ToAgent(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("hello", "offer", "table", "part", "changes", "compare", "want", "ack", "resync", "beat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    RESYNC_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    offer: Offer
    table: Table
    part: Part
    changes: Changes
    compare: Compare
    want: Want
    ack: Ack
    resync: Resync
    beat: Beat
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., table: _Optional[_Union[Table, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., changes: _Optional[_Union[Changes, _Mapping]] = ..., compare: _Optional[_Union[Compare, _Mapping]] = ..., want: _Optional[_Union[Want, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., resync: _Optional[_Union[Resync, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "cluster", "version")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    cluster: str
    version: str
    def __init__(self, protocol: _Optional[int] = ..., cluster: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("root", "complete")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    root: bytes
    complete: bool
    def __init__(self, root: _Optional[bytes] = ..., complete: _Optional[bool] = ...) -> None: ...

class Compare(_message.Message):
    __slots__ = ("bits", "buckets")
    BITS_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    bits: int
    buckets: bytes
    def __init__(self, bits: _Optional[int] = ..., buckets: _Optional[bytes] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ("differing", "digests", "last")
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    differing: bytes
    digests: bytes
    last: bool
    def __init__(self, differing: _Optional[bytes] = ..., digests: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("missing", "surplus", "last")
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SURPLUS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    missing: bytes
    surplus: bytes
    last: bool
    def __init__(self, missing: _Optional[bytes] = ..., surplus: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class Changes(_message.Message):
    __slots__ = ("records", "removed", "confirmed", "end", "generation", "complete")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    removed: _containers.RepeatedScalarFieldContainer[str]
    confirmed: bytes
    end: bool
    generation: int
    complete: bool
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., confirmed: _Optional[bytes] = ..., end: _Optional[bool] = ..., generation: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("key", "digest", "payload")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    key: str
    digest: bytes
    payload: bytes
    def __init__(self, key: _Optional[str] = ..., digest: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("key", "digest", "total", "slice")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    key: str
    digest: bytes
    total: int
    slice: bytes
    def __init__(self, key: _Optional[str] = ..., digest: _Optional[bytes] = ..., total: _Optional[int] = ..., slice: _Optional[bytes] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("taken", "applied")
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    taken: int
    applied: int
    def __init__(self, taken: _Optional[int] = ..., applied: _Optional[int] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Resync(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

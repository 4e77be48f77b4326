"""Objects that kubectl encodes as protobuf; what kubectl really sends is tried in tests/contract/test_kubectl.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.embedded.errors import ApiError
from isthmus.embedded.protobuf import decode


def field(number: int, value: bytes | str | int) -> bytes:
    """One field on the wire."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def envelope(kind: str, raw: bytes, version: str = "v1") -> bytes:
    about = field(1, version) + field(2, kind)
    return b"k8s\0" + field(1, about) + field(2, raw) + field(3, "") + field(4, "")


METADATA = field(
    1, field(1, "a") + field(2, "") + field(7, 0) + field(8, b"") + field(11, field(1, "k") + field(2, "v"))
)


@pytest.mark.parametrize(
    ("kind", "raw", "found"),
    [
        (
            "ConfigMap",
            METADATA + field(2, field(1, "x") + field(2, "y" * 200)) + field(3, field(1, "b") + field(2, b"\0\1")),
            {"metadata": {"name": "a", "labels": {"k": "v"}}, "data": {"x": "y" * 200}, "binaryData": {"b": "AAE="}},
        ),
        (
            "Service",
            METADATA
            + field(2, field(1, field(3, 80) + field(4, field(1, 1) + field(2, 0) + field(3, "http")) + field(5, 0))),
            {"metadata": {"name": "a", "labels": {"k": "v"}}, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}},
        ),
        (
            "Deployment",
            METADATA + field(2, field(1, 0) + field(5, 0)) + field(3, field(1, 0)),
            {"metadata": {"name": "a", "labels": {"k": "v"}}, "spec": {"replicas": 0}},
        ),
    ],
)
def test_known_kinds(kind: str, raw: bytes, found: dict[str, Any]) -> None:
    """Fields come back under their JSON names; zeros that mean nothing do not."""
    assert decode(envelope(kind, raw)) == {"apiVersion": "v1", "kind": kind, **found}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"k8s\0" + field(1, field(2, "ConfigMap"))[:-3], 400),
        (envelope("ConfigMap", b"\xff"), 400),
        (envelope("ConfigMap", field(1, field(1, b"\xff\xfe"))), 400),
        (envelope("ConfigMap", b"\x0d\0\0\0\0"), 400),
        (envelope("PersistentVolume", METADATA), 415),
        (envelope("ConfigMap", METADATA + field(99, "new")), 415),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, code: int) -> None:
    """Broken bodies are 400; kinds and fields beyond the tables 415, so that nothing is lost in silence."""
    with pytest.raises(ApiError) as refusal:
        decode(body)

    assert refusal.value.code == code


NOISE = st.binary(max_size=60) | st.lists(
    st.builds(field, st.integers(1, 5), st.integers(0, 9) | st.binary(max_size=9))
).map(b"".join)


@given(st.sampled_from(["ConfigMap", "Service", "Deployment", "Unknown", "Role"]), NOISE)
def test_noise_is_refused(kind: str, noise: bytes) -> None:
    """Random bytes are an object by chance or a refusal."""
    for body in (noise, b"k8s\0" + noise, envelope(kind, noise)):
        try:
            decode(body)
        except ApiError as refusal:
            assert refusal.code in (400, 415)  # noqa: PT017

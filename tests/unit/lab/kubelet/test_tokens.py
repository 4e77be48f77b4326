"""Tokens are asked for once, and again in time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from isthmus.lab.kubelet.status import timestamp
from isthmus.lab.kubelet.tokens import TokenStore
from isthmus.lab.kubelet.volumes import TokenRequest
from isthmus.model.ref import Kind
from tests.unit.lab.kubelet.pods import pod

ISTIO = TokenRequest("istio-ca", 43200)
OWN = TokenRequest("", 3600)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Issuer:
    """Issues numbered tokens that live as long as asked, as an API server does."""

    def __init__(self, clock: Clock) -> None:
        self.asked: list[dict[str, Any]] = []
        self._clock = clock

    async def create(self, kind: Kind, manifest: dict[str, Any], *, subresource: str = "") -> dict[str, Any]:
        assert (kind.kind, subresource) == ("ServiceAccount", "token")
        self.asked.append(manifest)
        end = self._clock() + manifest["spec"]["expirationSeconds"]
        return {
            "status": {
                "token": f"token {len(self.asked)}",
                "expirationTimestamp": timestamp(datetime.fromtimestamp(end, UTC)),
            }
        }


async def test_a_token_is_for_its_audience_and_bound_to_its_pod() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    store = TokenStore(issuer, pod(), clock)
    assert store.due_in() is None

    await store.fetch([ISTIO])

    [asked] = issuer.asked
    assert asked["metadata"] == {"name": "shopper", "namespace": "shop"}
    assert asked["spec"]["audiences"] == ["istio-ca"]
    assert asked["spec"]["boundObjectRef"]["uid"] == "u-1"
    assert store.token(ISTIO) == "token 1"


async def test_a_token_is_renewed_after_four_fifths_of_its_life() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    store = TokenStore(issuer, pod(), clock)
    await store.fetch([OWN])
    assert store.due_in() == 0.8 * 3600
    assert "audiences" not in issuer.asked[0]["spec"]

    clock.now += 0.8 * 3600 - 1
    await store.fetch([OWN])
    assert store.token(OWN) == "token 1"

    clock.now += 1
    assert store.due_in() == 0
    await store.fetch([OWN])
    assert store.token(OWN) == "token 2"
    assert store.due_in() == 0.8 * 3600

"""Policies changed under load: no call outside the rules before and after passes, none inside both is refused."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from tests.lab.accessing import DENIED, Caller, Request, access_policy, account, apply, destination, nobody_allowed
from tests.lab.running import REQUEST_SECONDS, Calling, Json, Lab
from tests.lab.test_walkthrough import CLUSTERS

RATE = 10  # requests per second of each caller and callee
SECONDS = 400  # that they go on at most
STEADY = 3.0  # seconds in which only the new outcome was seen, and every open connection has told its last
SETTLED_WITHIN = 60.0
HERE, THERE = (Caller(cluster, "client") for cluster in CLUSTERS)


@dataclass
class Stream:
    """Requests of one caller to one callee, one after the other."""

    caller: Caller
    request: Request
    calling: Calling
    judged: int = 0
    passed: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def take(self, outcomes: set[bool]) -> bool | None:
        """Take the next answer: whether it was passed on; one that is not among *outcomes* is noted as wrong."""
        self.calling.until("anything", lambda line: True, within=3 * REQUEST_SECONDS)
        line = self.calling.seen.pop()
        outcome = True if "pod" in line else False if (line["status"], line.get("body")) == (403, DENIED) else None
        self.judged += 1
        self.passed += outcome is True
        self.refused += outcome is False
        if outcome not in outcomes:
            self.wrong.append(f"{self.caller} {self.request}: {line}")
        return outcome


@dataclass(frozen=True)
class Rules:
    """Which streams pass, and the change that makes it so."""

    name: str
    allowed: frozenset[tuple[Caller, str]]
    change: Callable[[Lab], None]


def policy(name: str, callers: Sequence[Caller], *services: str) -> Json:
    """Lets *callers* call *services* on both clusters."""
    selected = [destination(service, cluster) for service in services for cluster in CLUSTERS]
    return access_policy(name, sourceSelector=[account(caller) for caller in callers], destinationSelector=selected)


def mode(stance: str) -> Callable[[Lab], None]:
    """Sets the virtual mesh's globalAccessPolicy."""

    def change(lab: Lab) -> None:
        patch = json.dumps({"spec": {"globalAccessPolicy": stance}})
        lab.kubectl("mgmt", "patch", "virtualmesh", "virtual-mesh", "-n", "gloo-mesh", "--type", "merge", "-p", patch)

    return change


def applies(*policies: Json) -> Callable[[Lab], None]:
    """Applies *policies* at once."""
    return lambda lab: apply(lab, *policies)


def deletes(*names: str) -> Callable[[Lab], None]:
    """Deletes policies."""

    def change(lab: Lab) -> None:
        lab.kubectl("mgmt", "delete", "accesspolicies", "-n", "gloo-mesh", *names)

    return change


def rules(name: str, change: Callable[[Lab], None], **callers: Sequence[Caller]) -> Rules:
    """Rules by which *callers* of each service pass."""
    return Rules(name, frozenset((caller, service) for service, found in callers.items() for caller in found), change)


BOTH = (HERE, THERE)
FLIPS = (
    rules("one caller", applies(policy("a", [HERE], "details")), details=[HERE]),
    rules("another caller in its place", applies(policy("a", [THERE], "details")), details=[THERE]),
    rules("both, by two policies", applies(policy("b", [HERE], "details", "ratings")), details=BOTH, ratings=[HERE]),
    rules("moved to the other service", applies(policy("a", [THERE], "ratings")), details=[HERE], ratings=BOTH),
    rules("the default opened", mode("DISABLED"), details=[HERE], ratings=BOTH),
    rules("the last policy of a service gone", deletes("b"), details=BOTH, ratings=[THERE]),
    rules("the default closed", mode("ENABLED"), ratings=[THERE]),
    rules("all that is left gone", deletes("a")),
)


@pytest.fixture(scope="module")
def denied(federated: Lab) -> Iterator[Lab]:
    """Nobody may call. Everybody may, after the tests."""
    with nobody_allowed(federated):
        try:
            yield federated
        finally:
            mode("ENABLED")(federated)


@pytest.fixture
def streams(denied: Lab) -> Iterator[list[Stream]]:
    """Both clients call details of cluster1 and ratings of cluster2, so one of them across clusters each time."""
    with contextlib.ExitStack() as stack:
        found = []
        for caller in BOTH:
            for request in (Request("details", CLUSTERS[0]), Request("ratings", CLUSTERS[1])):
                url = request.as_of(caller)["url"]
                calling = stack.enter_context(
                    denied.calling(caller.cluster, url, rate=RATE, seconds=SECONDS, timeout=REQUEST_SECONDS)
                )
                found.append(Stream(caller, request, calling))
        yield found


def test_no_call_passes_outside_the_rules_and_none_inside_is_refused(denied: Lab, streams: list[Stream]) -> None:
    """Every answer is as the rules before or after the change that goes on say, and as both where they agree."""
    for stream in streams:
        settle(stream, was=True, will=False)  # everybody was allowed before
    before: frozenset[tuple[Caller, str]] = frozenset()
    for flip in FLIPS:
        began = time.monotonic()
        flip.change(denied)
        for stream in streams:
            was, will = ((stream.caller, stream.request.service) in found for found in (before, flip.allowed))
            settle(stream, was=was, will=will)
            assert stream.wrong == [], flip.name
        before = flip.allowed
        denied.measured.append(f"access, {flip.name}: settled {time.monotonic() - began:.1f} s after the change")
    counts = [f"{sum(each.passed for each in streams)} passed", f"{sum(each.refused for each in streams)} refused"]
    denied.measured.append(f"access under load: {', '.join(counts)}, none beside the rules")
    assert all(stream.passed and stream.refused for stream in streams)


def settle(stream: Stream, *, was: bool, will: bool) -> None:
    """Take answers until only the new outcome has been seen for a while."""
    since = time.monotonic()
    end = since + SETTLED_WITHIN
    steady = 0
    while steady < STEADY * RATE:
        steady = steady + 1 if stream.take({was, will}) is will else 0
        assert time.monotonic() < end, f"{stream.caller} {stream.request}: not {will} yet"

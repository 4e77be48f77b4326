"""Forty access policies that nobody wrote: `meshctl access can` says of each request what the callees' proxies do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.lab.accessing import (
    ACCOUNTS,
    CALLERS,
    PORT,
    SERVICES,
    Caller,
    Request,
    access_policy,
    allows,
    apply,
    can,
    destination,
    named,
    nobody_allowed,
    on_paper,
    rules,
    settled,
)
from tests.lab.policies import names_parent
from tests.lab.running import Json, Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS, OURS

SEED = 20261123
BATCHES = 5  # each with a policy on every service of every cluster: forty
NOWHERE = "cluster9"
REQUESTS = (("GET", "/a/b"), ("GET", "/a/b?c=/x"), ("POST", "/a/b/c"), ("DELETE", "/x/b"))
METHODS = ("GET", "POST", "DELETE", "PUT")
PATHS: dict[str, Callable[[str], bool]] = {
    "/a/b": lambda path: path == "/a/b",
    "/a/*": lambda path: path.startswith("/a/"),
    "/a*": lambda path: path.startswith("/a"),
    "*/b": lambda path: path.endswith("/b"),
    "*/c": lambda path: path.endswith("/c"),
    "/x": lambda path: path == "/x",
    "*": lambda path: True,
}
"""Paths as policies name them, and what each matches: the meaning of a policy, apart from everything that is tested."""


@dataclass(frozen=True)
class Source:
    """A source selector, and whom it means."""

    selector: Json
    means: Callable[[Caller], bool]


@dataclass(frozen=True)
class Generated:
    """A policy of one service, and which requests it means."""

    manifest: Json
    service: str
    cluster: str
    sources: tuple[Source, ...]

    def means(self, caller: Caller, request: Request) -> bool:
        """Whether it allows *request*."""
        spec = self.manifest["spec"]
        path = request.path.partition("?")[0]
        return (
            (request.service, request.cluster) == (self.service, self.cluster)
            and (not self.sources or any(source.means(caller) for source in self.sources))
            and (not spec["allowedPaths"] or any(PATHS[each](path) for each in spec["allowedPaths"]))
            and (not spec["allowedMethods"] or request.method in spec["allowedMethods"])
            and (not spec["allowedPorts"] or PORT in spec["allowedPorts"])
        )


def some(chance: random.Random, found: tuple[str, ...], *, most: int) -> list[str]:
    """Some of *found*, none as often as any other number up to *most*."""
    return sorted(chance.sample(found, chance.randint(0, most)))


def source(chance: random.Random) -> Source:
    """A selector of one of the forms that there are."""
    cluster = chance.choice([*CLUSTERS, ""])
    workload = chance.choice(sorted(ACCOUNTS))
    match chance.choice(["account", "account", "account of any name", "unknown cluster", "namespace", "cluster"]):
        case "account":
            return accounts(cluster, ACCOUNTS[workload], lambda caller: caller.workload == workload)
        case "account of any name":
            return accounts(cluster, "", lambda caller: True)
        case "unknown cluster":
            return accounts(NOWHERE, ACCOUNTS[workload], lambda caller: False)
        case "namespace":
            namespace = chance.choice(["default", "elsewhere"])
            return Source({"kubeIdentityMatcher": {"namespaces": [namespace]}}, lambda _: namespace == "default")
        case _:
            chosen = some(chance, CLUSTERS, most=2) or [NOWHERE]
            matcher = {"clusters": chosen, "namespaces": ["default"]}
            return Source({"kubeIdentityMatcher": matcher}, lambda caller: caller.cluster in chosen)


def accounts(cluster: str, name: str, means: Callable[[Caller], bool]) -> Source:
    """A reference to service accounts; an empty *cluster* or *name* stands for any."""
    found = {"name": name, "namespace": "default", "clusterName": cluster}
    selector = {"kubeServiceAccountRefs": {"serviceAccounts": [found]}}
    return Source(selector, lambda caller: means(caller) and cluster in ("", caller.cluster))


def generated(chance: random.Random, number: int, service: str, cluster: str) -> Generated:
    """A policy of *service* on *cluster*."""
    sources = tuple(source(chance) for _ in range(chance.choice([0, 1, 1, 2, 2, 3])))
    matcher = {"kubeServiceMatcher": {"clusters": [cluster], "labels": {"service": service}}}
    manifest = access_policy(
        f"batch{number}-{service}-{cluster}",
        sourceSelector=[each.selector for each in sources],
        destinationSelector=[chance.choice([matcher, destination(service, cluster)])],
        allowedPaths=some(chance, tuple(PATHS), most=2),
        allowedMethods=some(chance, METHODS, most=2),
        allowedPorts=chance.choice([[], [], [PORT], [80, PORT], [8080]]),
    )
    return Generated(manifest, service, cluster, sources)


def batches() -> Iterator[tuple[Generated, ...]]:
    """All policies, a policy of every service at a time."""
    chance = random.Random(SEED)
    for number in range(BATCHES):
        yield tuple(generated(chance, number, service, cluster) for service in SERVICES for cluster in CLUSTERS)


@pytest.fixture(scope="module")
def denied(federated: Lab) -> Iterator[Lab]:
    """Nobody may call. Everybody may, after the tests."""
    with nobody_allowed(federated):
        yield federated


@pytest.mark.parametrize("batch", tuple(batches()), ids=[f"batch{number}" for number in range(BATCHES)])
def test_proxies_do_what_the_rules_on_paper_say(denied: Lab, batch: tuple[Generated, ...]) -> None:
    """`meshctl access can`, the rules on the clusters, and Envoy, request by request; all as the policies mean it."""
    denied.kubectl("mgmt", "delete", "accesspolicies", "--all", "-n", "gloo-mesh")
    apply(denied, *(each.manifest for each in batch))
    eventually("the policies are written", lambda: all(is_written(denied, each) for each in batch))
    requests = [Request(each.service, each.cluster, *how) for each in batch for how in REQUESTS]
    found, reachability = rules(denied), on_paper(denied)
    meant = {
        (caller, request): any(each.means(caller, request) for each in batch)
        for caller in CALLERS
        for request in requests
    }

    written = {(caller, request): allows(found, caller, request) for caller, request in meant}
    told = {(caller, request): can(reachability, caller, request) for caller, request in meant}
    answers = settled(denied, "proxies do the same", requests, lambda caller, request: told[caller, request])

    assert told == written == meant
    assert set(meant.values()) == {True, False}
    passed = sum(meant.values())
    denied.measured.append(f"{named(batch[0].manifest)} …: {len(answers)} requests, {passed} allowed, as on paper")


def is_written(lab: Lab, policy: Generated) -> bool:
    """Whether the AuthorizationPolicy of its service is that of *policy* alone."""
    written = lab.objects(policy.cluster, "authorizationpolicies", "-n", "default", "-l", OURS)
    of_service = [item for item in written if item["metadata"]["name"] == policy.service]
    return bool(of_service) and names_parent(of_service[0], named(policy.manifest))

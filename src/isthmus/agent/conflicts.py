"""Hosts for which users wrote VirtualServices or DestinationRules of their own: what counts then is theirs. No I/O.

Istio takes the routes of sidecars to a host from the oldest VirtualService that names it, and what connections are
like from the oldest DestinationRule. So ours is not written beside an older one of somebody else's, where it would
either do nothing or, depending on namespaces, silently replace what the user said. One that a user writes beside ours
later changes nothing of ours; it is Istio that leaves it out.

Of DestinationRules only those for exactly the same host count: Istio lets a rule for one host go before one for
`*.local`, as everybody who writes one for all hosts expects.
Source: Istio's PushContext (`VirtualServicesForGateway`, `destinationRule`, `mergeDestinationRule`) and
`ResolveShortnameToFQDN`; reference, user-supplied VirtualService/DestinationRule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from isthmus.istio.kinds import DESTINATION_RULE, VIRTUAL_SERVICE
from isthmus.model.ref import Kind, ObjectKey

Manifest = dict[str, Any]

MESH = "mesh"  # among a VirtualService's gateways: every sidecar


class Claim(msgspec.Struct, frozen=True):
    """The hosts that one object configures for sidecars.

    A service of the own cluster also has the name ``<name>.<namespace>.svc``, since users may leave out the domain.
    """

    hosts: frozenset[str]
    created: str
    """RFC 3339; empty for what does not exist yet."""
    private: bool
    """Whether only proxies of its own namespace take it, which prefer it to all others."""
    subsets_of: frozenset[str]
    """Hosts of which it names subsets, which it takes a DestinationRule to define."""


def claim_of(kind: Kind, manifest: Manifest) -> Claim | None:
    """What *manifest* claims, no host if sidecars do not read it; None for other kinds."""
    if kind not in (VIRTUAL_SERVICE, DESTINATION_RULE):
        return None
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    hosts: Iterable[Any] = ()
    if kind == VIRTUAL_SERVICE and MESH in (spec.get("gateways") or (MESH,)):
        hosts = spec.get("hosts") or ()
    elif kind == DESTINATION_RULE and not spec.get("workloadSelector"):
        hosts = (spec.get("host"),)
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    named = frozenset(alias for host in hosts if host for alias in _aliases(str(host), namespace, name))
    return Claim(
        hosts=named,
        created=metadata.get("creationTimestamp") or "",
        private=spec.get("exportTo") == ["."],
        subsets_of=frozenset(_subsets_of(spec)) if kind == VIRTUAL_SERVICE else frozenset(),
    )


def _aliases(host: str, namespace: str, name: str) -> Iterator[str]:
    host = host.lower()
    if "." not in host and host != "*":
        yield f"{host}.{namespace}.svc"
        return
    yield host
    if host.startswith(short := f"{name}.{namespace}.svc."):
        yield short.rstrip(".")


def _subsets_of(spec: Manifest) -> Iterator[str]:
    for route in spec.get("http") or ():
        for target in (*(each.get("destination") for each in route.get("route") or ()), route.get("mirror")):
            if target and target.get("subset"):
                yield target["host"]


class _Claims:
    """The claims of one side on one kind, by host."""

    def __init__(self) -> None:
        self.claims: dict[ObjectKey, Claim] = {}
        self._by_host: dict[str, set[ObjectKey]] = {}
        self._wild: set[str] = set()

    def put(self, key: ObjectKey, claim: Claim | None) -> frozenset[str]:
        """Replace the claim of *key*; the hosts that it claimed or claims, none if nothing changed."""
        before = self.claims.get(key)
        if before == claim:
            return frozenset()
        self.claims.pop(key, None)
        for host in before.hosts if before else ():
            self._by_host[host].discard(key)
            if not self._by_host[host]:
                del self._by_host[host]
                self._wild.discard(host)
        if claim is not None:
            self.claims[key] = claim
            for host in claim.hosts:
                self._by_host.setdefault(host, set()).add(key)
                if host.startswith("*"):
                    self._wild.add(host)
        return (before.hosts if before else frozenset()) | (claim.hosts if claim else frozenset())

    def of(self, host: str, *, wild: bool) -> Iterator[ObjectKey]:
        """Who claims *host*, with *wild* also by a wildcard."""
        yield from self._by_host.get(host, ())
        for pattern in self._wild if wild else ():
            if pattern != host and host.endswith(pattern[1:]):
                yield from self._by_host[pattern]

    def within(self, pattern: str) -> Iterator[ObjectKey]:
        """Who claims *pattern*, or a host that it covers if it has a wildcard."""
        yield from self._by_host.get(pattern, ())
        if pattern.startswith("*"):
            for host in [host for host in self._by_host if host.endswith(pattern[1:])]:
                yield from self._by_host[host]


class Conflict(msgspec.Struct, frozen=True):
    """Why a desired object is not to be written."""

    reason: str
    younger: bool
    """Whether one of ours that is there has to go, since it came after somebody else's."""


class Conflicts:
    """Which desired objects have to stand back. *created* tells since when ours exists, empty if it does not."""

    def __init__(self, created: Callable[[Kind, ObjectKey], str]) -> None:
        self._created = created
        self._ours = {kind: _Claims() for kind in (VIRTUAL_SERVICE, DESTINATION_RULE)}
        self._theirs = {kind: _Claims() for kind in (VIRTUAL_SERVICE, DESTINATION_RULE)}
        self._naming: dict[str, set[ObjectKey]] = {}
        """Our VirtualServices, by the hosts of which they name subsets."""

    def note(self, kind: Kind, key: ObjectKey, ours: Claim | None, theirs: Claim | None) -> Iterable[ObjectKey]:
        """Take note of what the desired object at *key* claims, and somebody else's there. What else to decide."""
        if kind not in self._ours:
            return ()
        before = self._ours[kind].claims.get(key)
        for host in before.subsets_of if before else ():
            self._naming[host].discard(key)
            if not self._naming[host]:
                del self._naming[host]
        for host in ours.subsets_of if ours else ():
            self._naming.setdefault(host, set()).add(key)
        claimed, contested = self._ours[kind].put(key, ours), self._theirs[kind].put(key, theirs)
        again = dict.fromkeys(mine for host in sorted(contested) for mine in sorted(self._ours[kind].within(host)))
        if kind == DESTINATION_RULE:
            for host in sorted(claimed | contested):
                again.update(dict.fromkeys(sorted(self._naming.get(host, ()))))
        return tuple(again)

    def needs_rules(self, key: ObjectKey) -> bool:
        """Whether the desired object at *key* names subsets."""
        claim = self._ours[VIRTUAL_SERVICE].claims.get(key)
        return claim is not None and bool(claim.subsets_of)

    def needing_rules(self) -> tuple[ObjectKey, ...]:
        """The desired objects that name subsets."""
        return tuple(sorted({key for keys in self._naming.values() for key in keys}))

    def about(self, kind: Kind, key: ObjectKey) -> Conflict | None:
        """Why the desired object at *key* has to stand back, None if it has not to."""
        claim = self._ours[kind].claims.get(key) if kind in self._ours else None
        if claim is None:
            return None
        rival = self._rival(kind, key, claim)
        if rival is not None:
            return Conflict(_text(claim, rival, self._theirs[kind].claims[rival]), younger=True)
        rules = self._ours[DESTINATION_RULE]
        for host in sorted(claim.subsets_of):
            for rule in sorted(rules.of(host, wild=False)):
                taken = rule if rule in self._theirs[DESTINATION_RULE].claims else None
                rival = taken or self._rival(DESTINATION_RULE, rule, rules.claims[rule])
                if rival is not None:
                    return Conflict(
                        f"conflict: it names subsets of {host}, and the existing {_name(rival)}, which the management "
                        "plane did not make, keeps it from saying what they are: delete that one",
                        younger=False,
                    )
        return None

    def _rival(self, kind: Kind, key: ObjectKey, claim: Claim) -> ObjectKey | None:
        """Whose object counts in place of ours at *key*: of several the oldest."""
        since, theirs = self._created(kind, key), self._theirs[kind]
        found = {
            other
            for host in claim.hosts
            for other in theirs.of(host, wild=kind == VIRTUAL_SERVICE)
            if _meet(key, claim, other, theirs.claims[other]) and (not since or theirs.claims[other].created <= since)
        }
        return min(found, key=lambda other: (theirs.claims[other].created, other), default=None)


def _meet(ours: ObjectKey, claim: Claim, other: ObjectKey, rival: Claim) -> bool:
    """Whether there are proxies for which both are meant alike."""
    return ours.namespace == other.namespace or not (claim.private or rival.private)


def _text(claim: Claim, rival: ObjectKey, theirs: Claim) -> str:
    host = max(claim.hosts, key=len)
    named = "" if claim.hosts & theirs.hosts else f" as one of {min(theirs.hosts, key=len)}"
    return (
        f"conflict: {host} is already configured{named} by the existing {_name(rival)}, which the management plane did "
        "not make: that one counts, and nothing is written beside it. Delete it or take the host out of it, or leave "
        "this cluster out of the policy"
    )


def _name(key: ObjectKey) -> str:
    return f"{key.kind} {key.namespace}/{key.name}"

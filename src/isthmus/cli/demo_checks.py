"""Whether two federated clusters look as the walk-through says. The expectations are its own files."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.kinds import POLICIES
from isthmus.cli.clusters import connect
from isthmus.embedded.fleet import walkthrough
from isthmus.istio.kinds import DESTINATION_RULE, GATEWAY, SERVICE_ENTRY
from isthmus.model import kinds

Manifest = dict[str, Any]

FEDERATION_NETWORK = ipaddress.ip_network("240.0.0.0/4")
SETTLE_SECONDS = 20.0
SETTLE_POLL = 0.2
MASKED_ADDRESS, MASKED_GATEWAY = "x.x.x.x", "y.y.y.y"  # what the expected entry has in place of the two addresses


class Row(msgspec.Struct, frozen=True, order=True):
    """A ServiceEntry as `kubectl get serviceentries -A` lists it, without its age."""

    namespace: str
    name: str
    hosts: str
    location: str
    resolution: str


def expected_rows() -> tuple[Row, ...]:
    """What the walk-through sees on cluster1 of cluster2's services."""
    lines = walkthrough("expected/service-entries-on-cluster1.txt").read_text().splitlines()
    return tuple(Row(*line.split()[:5]) for line in lines[1:] if line.strip())


def row_of(entry: Manifest) -> Row:
    """The row of *entry*."""
    metadata, spec = entry["metadata"], entry["spec"]
    return Row(
        metadata["namespace"],
        metadata["name"],
        f"[{','.join(spec['hosts'])}]",
        spec.get("location", ""),
        spec.get("resolution", ""),
    )


def missing_rows(entries: Iterable[Manifest], own: str, other: str) -> str:
    """Which of the walk-through's rows cluster *own* lacks of cluster *other*, and which rows it has besides.

    Entries under the cluster's own name let calls in and are not in the walk-through's list.
    """
    renamed = {
        msgspec.structs.replace(
            row, name=row.name.replace("cluster2", other), hosts=row.hosts.replace("cluster2", other)
        )
        for row in expected_rows()
    }
    found = {row_of(entry) for entry in entries if not entry["metadata"]["name"].endswith(f".{own}.global")}
    wrong = [f"missing {row}" for row in sorted(renamed - found)] + [
        f"unexpected {row}" for row in sorted(found - renamed)
    ]
    return "; ".join(wrong)


def differing(entry: Manifest, gateways: Sequence[str]) -> str:
    """How *entry* differs from the walk-through's entry for `reviews`, whose two addresses are masked."""
    import yaml

    wanted = yaml.safe_load(walkthrough("expected/service-entry-reviews.yaml").read_text())
    found = {
        "apiVersion": entry["apiVersion"],
        "kind": entry["kind"],
        "metadata": {key: entry["metadata"].get(key) for key in ("labels", "name", "namespace")},
        "spec": msgspec.json.decode(msgspec.json.encode(entry["spec"])),
    }
    spec = found["spec"]
    problems = []
    for address in spec.get("addresses", ()):
        if ipaddress.ip_address(address) not in FEDERATION_NETWORK:
            problems.append(f"{address} is not in {FEDERATION_NETWORK}")
    spec["addresses"] = [MASKED_ADDRESS for _ in spec.get("addresses", ())]
    for endpoint in spec.get("endpoints", ()):
        if endpoint["address"] not in gateways:
            problems.append(f"{endpoint['address']} is not an address of the other cluster's gateway")
        endpoint["address"] = MASKED_GATEWAY
    if found != wanted:
        problems.append(f"found {found}, expected {wanted}")
    return "; ".join(problems)


async def check_walkthrough(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every check by name, with what is wrong, empty when nothing is. Reads the current kubeconfig.

    Agents write one object after the other, so what is wrong at first is looked at again for a few seconds.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        results = await _check_once(names)
        if time.monotonic() > deadline or not any(problem for _, problem in results):
            return results
        await asyncio.sleep(SETTLE_POLL)


async def _check_once(names: Sequence[str]) -> list[tuple[str, str]]:
    first, second = names
    results = []
    entries: dict[str, tuple[Manifest, ...]] = {}
    gateways: dict[str, list[str]] = {}
    roots: dict[str, str] = {}
    for name in names:
        async with connect(None, name) as cluster:
            entries[name] = (await cluster.list(SERVICE_ENTRY)).items
            rules = (await cluster.list(DESTINATION_RULE)).items
            passing = (await cluster.list(GATEWAY, "istio-system")).items
            secrets = {item["metadata"]["name"] for item in (await cluster.list(kinds.SECRET, "gloo-mesh")).items}
            certificates = (await cluster.list(IssuedCertificate.KIND)).items
            roots[name] = root_of((await cluster.list(kinds.SECRET, "istio-system")).items)
            service = await cluster.get(kinds.SERVICE, "istio-system", "istio-ingressgateway")
        ingress = service["status"]["loadBalancer"]["ingress"]
        gateways[name] = [entry.get("ip") or entry.get("hostname") for entry in ingress]
        other = second if name == first else first
        results += [
            (
                f"{name} has the five ServiceEntries of {other} as the walk-through lists them",
                missing_rows(entries[name], name, other),
            ),
            (f"{name} has the entries that let calls of {other} in", missing_own_entries(entries[name], name)),
            (f"{name} calls {other} with mutual TLS", without_mutual_tls(rules, other)),
            (f"{name}'s gateway passes mutual TLS on", no_passthrough(passing)),
            (f"{name}'s agent has its own certificate and no token any more", wrong_secrets(secrets)),
            (f"{name}'s mesh has its certificate, and all pods run with it", unfinished(certificates)),
        ]
    reviews = next(
        (item for item in entries[first] if item["metadata"]["name"] == f"reviews.default.svc.{second}.global"), None
    )
    results += [
        (
            f"{first}'s entry for reviews is the walk-through's, field by field",
            differing(reviews, gateways[second]) if reviews else "it does not exist",
        ),
        ("every federated host name has an address of its own", shared_addresses(entries)),
        ("all meshes trust one root", different_roots(roots)),
    ]
    async with connect(None, "mgmt") as mgmt:
        for resource in POLICIES:
            for item in (await mgmt.list(resource.KIND)).items:
                state = (item.get("status") or {}).get("state", "PENDING")
                about = f"{item['kind']} {item['metadata']['name']} is ACCEPTED"
                results.append((about, "" if state == "ACCEPTED" else f"it is {state}: {item.get('status')}"))
    return results


def missing_own_entries(entries: Iterable[Manifest], own: str) -> str:
    """Which of the entries that let calls of other clusters in cluster *own* lacks."""
    found = {item["metadata"]["name"] for item in entries}
    wanted = {row.name.replace("cluster2", own) for row in expected_rows()}
    return f"missing {', '.join(sorted(wanted - found))}" if wanted - found else ""


def without_mutual_tls(rules: Iterable[Manifest], other: str) -> str:
    """Host names of cluster *other* that are not called with mutual TLS."""
    modes = {
        item["spec"]["host"]: ((item["spec"].get("trafficPolicy") or {}).get("tls") or {}).get("mode") for item in rules
    }
    wrong = [
        row.name.replace("cluster2", other)
        for row in expected_rows()
        if modes.get(row.name.replace("cluster2", other)) != "ISTIO_MUTUAL"
    ]
    return f"not for {', '.join(wrong)}" if wrong else ""


def no_passthrough(gateways: Iterable[Manifest]) -> str:
    """What is wrong with the gateways, of which one must pass the TLS of federated host names on."""
    for gateway in gateways:
        for server in gateway["spec"].get("servers", ()):
            if (server.get("tls") or {}).get("mode") == "AUTO_PASSTHROUGH" and server["hosts"] == ["*.global"]:
                return ""
    return "no Gateway with AUTO_PASSTHROUGH for *.global"


def wrong_secrets(names: set[str]) -> str:
    """What is wrong with the names of a registered cluster's Secrets."""
    problems = []
    if "relay-client-tls-secret" not in names:
        problems.append("no relay-client-tls-secret")
    if "relay-identity-token-secret" in names:
        problems.append("relay-identity-token-secret is still there")
    return "; ".join(problems)


def unfinished(certificates: Iterable[Manifest]) -> str:
    """Which of a cluster's IssuedCertificates are not FINISHED, and why, or that there is none."""
    states = {
        item["metadata"]["name"]: (
            (item.get("status") or {}).get("state", "PENDING"),
            (item.get("status") or {}).get("error", ""),
        )
        for item in certificates
    }
    if not states:
        return "there is no IssuedCertificate"
    return "; ".join(
        f"{name} is {state} {error}".strip() for name, (state, error) in states.items() if state != "FINISHED"
    )


def root_of(secrets: Iterable[Manifest]) -> str:
    """The root that Istio's plug-in certificates name, as it stands in their Secret; empty if there are none."""
    found = (item.get("data") or {} for item in secrets if item["metadata"]["name"] == "cacerts")
    return str(next(found, {}).get("root-cert.pem", ""))


def different_roots(roots: Mapping[str, str]) -> str:
    """Which clusters' roots are missing or another than the first cluster's."""
    first = next(iter(roots))
    return "; ".join(
        f"{name} has another root than {first}" if root else f"{name} has no cacerts"
        for name, root in roots.items()
        if not root or root != roots[first]
    )


def shared_addresses(entries: dict[str, tuple[Manifest, ...]]) -> str:
    """Addresses that more than one host name has."""
    hosts: dict[str, set[str]] = {}
    for items in entries.values():
        for item in items:
            for address in item["spec"].get("addresses", ()):
                hosts.setdefault(address, set()).update(item["spec"]["hosts"])
    shared = [f"{address}: {', '.join(sorted(names))}" for address, names in sorted(hosts.items()) if len(names) > 1]
    return "; ".join(shared)

"""What `meshctl describe` says about an AccessPolicy: who may call what, on which clusters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec
from isthmus.api.common import IdentitySelector
from isthmus.cli.description.parts import Known, Parts, Section, outcome_facts, selected, state_of

ANY = "any"


def describe(policy: AccessPolicy, known: Known) -> Parts:
    """The parts of an access policy, with the destinations that it selects and the workloads that may call them."""
    spec, status = policy.spec, policy.status
    outcomes = status.destinations if status else {}
    destinations = tuple(
        (found.metadata.name, found.spec.kube_service.ref.cluster_name, state_of(outcomes.get(found.ref.key)))
        for found in selected(spec.destination_selector, known.destinations)
        if found.spec.kube_service is not None
    )
    clusters = {
        found.ref.key: found.spec.kubernetes.controller.cluster_name
        for found in known.workloads
        if found.spec.kubernetes is not None
    }
    workloads = tuple((key.partition(".")[0], clusters.get(key, "")) for key in (status.workloads if status else ()))
    facts = {
        **outcome_facts(policy),
        "Callers": callers(spec),
        "Paths": ", ".join(spec.allowed_paths) or ANY,
        "Methods": ", ".join(spec.allowed_methods) or ANY,
        "Ports": ", ".join(map(str, spec.allowed_ports)) or ANY,
    }
    return facts, [
        Section("Selected destinations", ("DESTINATION", "CLUSTER", "STATE"), destinations),
        Section("Workloads that may call", ("WORKLOAD", "CLUSTER"), workloads),
    ]


def callers(spec: AccessPolicySpec) -> str:
    """Whom *spec* lets call, in words."""
    return "; ".join(_selector(selector) or ANY for selector in spec.source_selector) or "anybody"


def _selector(selector: IdentitySelector) -> str:
    """One source selector: what it asks for at once."""
    return " and ".join(_asked(selector))


def _asked(selector: IdentitySelector) -> Iterator[str]:
    matcher, request = selector.kube_identity_matcher, selector.request_identity_matcher
    namespaces = matcher.namespaces if matcher is not None else ()
    clusters = matcher.clusters if matcher is not None else ()
    accounts = selector.kube_service_account_refs.service_accounts if selector.kube_service_account_refs else ()
    named = [f"{each.namespace or '*'}/{each.name or '*'}@{each.cluster_name or '*'}" for each in accounts]
    named += [f"{namespace}/*@{cluster}" for cluster in clusters for namespace in namespaces or ("*",)]
    if named:
        yield _or(named)
    if namespaces and not clusters:
        yield f"namespace {_or(namespaces)}"
    if request is not None and request.request_principals:
        yield f"token of {_or(request.request_principals)}"
    if request is not None and request.not_request_principals:
        yield f"no token of {_or(request.not_request_principals)}"


def _or(words: Iterable[str]) -> str:
    return " or ".join(words)

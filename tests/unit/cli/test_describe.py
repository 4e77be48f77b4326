"""`meshctl describe`: each kind with what it selects and what selects it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import yaml

from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec, AccessPolicyStatus
from isthmus.api.base import ObjectMeta
from isthmus.api.common import ApprovalState, ApprovalStatus, DestinationSelector, KubeServiceMatcher
from isthmus.api.discovery import Destination, Endpoint, EndpointSubset, KubeService, Mesh, MeshSpec, Workload
from isthmus.api.issued_certificate import (
    DoubtfulPod,
    IssuedCertificateState,
    IssuedCertificateStatus,
    OutdatedPods,
    WorkloadCertificates,
)
from isthmus.api.parse import parse
from isthmus.api.traffic_policy import TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus
from isthmus.cli.describe import as_data
from isthmus.cli.description import describe_object
from isthmus.cli.description.access_policy import callers
from isthmus.cli.description.destination import MAX_ENDPOINTS
from isthmus.cli.description.parts import Description, Known, selected
from tests.golden import Golden, load_yaml
from tests.unit.cli.conftest import TRAFFIC, WALKTHROUGH
from tests.unit.cli.meshctl import Clusters, meshctl


@pytest.mark.parametrize(
    "words",
    [
        "virtualmesh virtual-mesh",
        "mesh istiod-istio-system-cluster1",
        "workload reviews-v1-default-cluster1-deployment",
        "destination reviews-default-cluster2",
        "kubernetescluster cluster1",
    ],
)
def test_what_is_said_of_each_kind(words: str, walkthrough: Clusters, golden: Golden) -> None:
    kind, name = words.split()

    result = meshctl("describe", kind, name, kubeconfig=walkthrough.kubeconfig)

    assert (result.exit_code, result.stderr) == (0, "")
    golden.check(WALKTHROUGH / f"out.describe-{kind}.txt", result.stdout)


@pytest.mark.parametrize(
    "words",
    [
        "destination reviews-default-cluster1",
        "trafficpolicy canary",
        "trafficpolicy quick",
        "trafficpolicy patience",
        "virtualdestination reviews-global",
        "destination legacy",
        "trafficpolicy calls-outside",
    ],
)
def test_what_is_said_of_traffic(words: str, traffic: Clusters, golden: Golden) -> None:
    """Of two policies that say different things both are shown, whichever is asked for."""
    kind, name = words.split()

    result = meshctl("describe", kind, name, kubeconfig=traffic.kubeconfig)

    assert (result.exit_code, result.stderr) == (0, "")
    golden.check(TRAFFIC / f"out.describe-{kind}-{name}.txt", result.stdout)


def test_conflicts_are_data_too(traffic: Clusters) -> None:
    words = ("describe", "destination", "reviews-default-cluster1", "-o", "json")

    found = json.loads(meshctl(*words, kubeconfig=traffic.kubeconfig).stdout)

    assert {"field": "requestTimeout", "counts": "gloo-mesh/patience", "leftOut": "gloo-mesh/quick"} in found[
        "conflicts"
    ]
    assert [route["route"] for route in found["routes"]] == ["cluster1/1", "cluster1/2", "cluster2/1"]
    assert {"labels": "version=v1", "readyPods": "1", "policy": "gloo-mesh/canary"} in found["subsetsInUse"]


def test_data_holds_the_same(walkthrough: Clusters) -> None:
    words = ("describe", "mesh", "istiod-istio-system-cluster1", "-o")

    one = json.loads(meshctl(*words, "json", kubeconfig=walkthrough.kubeconfig).stdout)
    same = yaml.safe_load(meshctl(*words, "yaml", kubeconfig=walkthrough.kubeconfig).stdout)

    assert one == same
    assert (one["namespace"], one["installedIn"]) == ("gloo-mesh", "istio-system")
    assert one["virtualMesh"] == "gloo-mesh/virtual-mesh"
    assert one["eastWestGateways"] == [
        {"gateway": "istio-ingressgateway-istio-system-cluster1", "address": "203.0.113.1", "port": "15443"}
    ]


def test_objects_are_searched_by_parts_of_their_names(walkthrough: Clusters) -> None:
    found = meshctl("describe", "dest", "-s", "ratings,details", kubeconfig=walkthrough.kubeconfig).stdout

    headings = [line.split()[1] for line in found.splitlines() if line.startswith("Destination ")]
    assert headings == [f"{service}-default-cluster{n}" for service in ("details", "ratings") for n in (1, 2)]


def load() -> Known:
    resources = [parse(manifest) for manifest in load_yaml(WALKTHROUGH / "in.yaml")]
    return Known.of(resources)  # type: ignore[arg-type]  # what cannot be read would be missing below


def test_a_policy_shows_the_destinations_it_selects_and_their_outcome() -> None:
    selector = DestinationSelector(
        kube_service_matcher=KubeServiceMatcher(namespaces=("default",), clusters=("cluster2",))
    )
    policy = TrafficPolicy(
        metadata=ObjectMeta(name="simple", namespace="gloo-mesh", generation=2),
        spec=TrafficPolicySpec(destination_selector=(selector,)),
        status=TrafficPolicyStatus(
            observed_generation=1,
            state=ApprovalState.INVALID,
            destinations={
                "reviews-default-cluster2.gloo-mesh.": ApprovalStatus(state=ApprovalState.INVALID, errors=("no v9",))
            },
        ),
    )

    description = describe_object(policy, load())

    assert description.facts["State"] == "INVALID (of an older version of the object)"
    _, chosen, problems = description.sections
    assert chosen.rows == (
        ("details-default-cluster2", ""),
        ("productpage-default-cluster2", ""),
        ("ratings-default-cluster2", ""),
        ("reviews-default-cluster2", "INVALID"),
    )
    assert problems.rows == (("reviews-default-cluster2", "no v9"),)


def test_no_selector_selects_every_destination_of_a_mesh() -> None:
    known = load()

    assert selected((), known.destinations) == list(known.destinations)


def test_of_very_many_endpoints_the_first_are_shown() -> None:
    endpoints = tuple(Endpoint(ip_address=f"10.0.{n // 256}.{n % 256}") for n in range(MAX_ENDPOINTS + 7))
    service = KubeService(endpoint_subsets=(EndpointSubset(endpoints=endpoints),))
    destination = Destination(
        metadata=ObjectMeta(name="large"), spec=Destination().spec.__class__(kube_service=service)
    )

    section = describe_object(destination, Known()).sections[1]

    assert (section.title, len(section.rows), section.more) == ("Endpoints", MAX_ENDPOINTS, 7)


def test_titles_become_keys() -> None:
    data = as_data(describe_object(TrafficPolicy(metadata=ObjectMeta(name="x")), Known()))

    assert data == {
        "kind": "TrafficPolicy", "namespace": "", "name": "x", "state": "not processed yet",
        "callers": "all", "requests": "all", "sets": [], "selectedDestinations": [],
    }  # fmt: skip


def certified(**changes: Any) -> Description:
    status = IssuedCertificateStatus(
        state=IssuedCertificateState.ISSUED, observed_trust="t", not_after="2027-11-01T00:00:00Z", **changes
    )
    return describe_object(Mesh(spec=MeshSpec(issued_certificate_status=status)), Known())


def test_a_mesh_is_said_to_be_on_the_shared_root() -> None:
    found = certified(workloads=WorkloadCertificates(observed_trust="t", shared=7, presumed=1))

    assert found.facts["Certificate"] == "ISSUED, valid until 2027-11-01T00:00:00Z"
    presented = "7 under the shared root, 1 newer than the certificate and unseen"
    assert found.facts["Pods' certificates"] == presented
    assert [section.title for section in found.sections] == ["East-west gateways", "Workloads", "Destinations"]


def test_pods_that_are_not_on_the_shared_root_are_listed() -> None:
    pods = (
        DoubtfulPod(name="default/a", shows_other=True, reason="certificate has expired"),
        DoubtfulPod(name="default/b", reason="no answer from port 80"),
    )
    workloads = WorkloadCertificates(observed_trust="t", other=1, unknown=3, pods=pods)

    found = certified(workloads=workloads, outdated_pods=OutdatedPods(count=3, names=("default/a", "default/b")))

    assert found.facts["Pods' certificates"] == "3 older than the certificate and unseen, 1 with another"
    old, doubtful = found.sections[-2:]
    assert (old.title, old.rows, old.more) == ("Pods with an older certificate", (("default/a",), ("default/b",)), 1)
    assert (doubtful.title, doubtful.more) == ("Pods not seen on the shared root", 2)
    assert doubtful.rows == (
        ("default/a", "another", "certificate has expired"),
        ("default/b", "none", "no answer from port 80"),
    )


def test_what_was_seen_under_the_root_before_is_not_told() -> None:
    found = certified(workloads=WorkloadCertificates(observed_trust="before", shared=7, other=1))

    assert found.facts["Pods' certificates"] == "not known"


def test_a_destination_names_the_access_policies_at_fault_too() -> None:
    """They close it, or let some of their callers in; its own status lists what it accepted."""
    by_name = {each["metadata"]["name"]: each for each in load_yaml(WALKTHROUGH / "in.yaml")}
    reviews = parse(by_name["reviews-default-cluster1"])
    assert isinstance(reviews, Destination)
    faulty, other = (
        AccessPolicy(
            metadata=ObjectMeta(name=name, namespace="gloo-mesh"),
            spec=AccessPolicySpec(),
            status=AccessPolicyStatus(destinations={ref: ApprovalStatus(state=ApprovalState.INVALID)}),
        )
        for name, ref in (("faulty", reviews.ref.key), ("other", "ratings-default-cluster1.gloo-mesh."))
    )

    found = describe_object(reviews, Known.of([faulty, other]))

    (section,) = (each for each in found.sections if each.title == "Access policies")
    assert section.rows == (("gloo-mesh/faulty", "INVALID", "anybody"),)


def test_an_access_policy_tells_who_may_call_what_on_which_cluster() -> None:
    """The callers in words, then the destinations and the workloads, each with its cluster."""
    objects = [parse(manifest) for manifest in load_yaml(WALKTHROUGH / "in.yaml")]
    destinations = tuple(item for item in objects if isinstance(item, Destination))
    workloads = tuple(item for item in objects if isinstance(item, Workload))
    policy = parse(yaml.safe_load(AccessPolicy.EXAMPLE))
    assert isinstance(policy, AccessPolicy)
    outcome = ApprovalStatus(state=ApprovalState.ACCEPTED)
    status = AccessPolicyStatus(
        state=ApprovalState.ACCEPTED,
        destinations={"details-default-cluster2.gloo-mesh.": outcome},
        workloads=("productpage-v1-default-cluster1-deployment.gloo-mesh.",),
    )

    data = as_data(describe_object(msgspec.structs.replace(policy, status=status), Known((), workloads, destinations)))

    assert (data["callers"], data["methods"], data["paths"]) == ("default/bookinfo-productpage@cluster1", "GET", "any")
    assert {"destination": "details-default-cluster2", "cluster": "cluster2", "state": "ACCEPTED"} in data[
        "selectedDestinations"
    ]
    assert {row["cluster"] for row in data["selectedDestinations"]} == {"cluster1", "cluster2"}
    assert data["workloadsThatMayCall"] == [
        {"workload": "productpage-v1-default-cluster1-deployment", "cluster": "cluster1"}
    ]


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ({}, "any"),
        ({"kubeIdentityMatcher": {"namespaces": ["a", "b"]}}, "namespace a or b"),
        ({"kubeIdentityMatcher": {"namespaces": ["a"], "clusters": ["east", "west"]}}, "a/*@east or a/*@west"),
        ({"kubeServiceAccountRefs": {"serviceAccounts": [{"namespace": "a"}]}}, "a/*@*"),
        (
            {"kubeIdentityMatcher": {"namespaces": ["a"]}, "requestIdentityMatcher": {"requestPrincipals": ["x/*"]}},
            "namespace a and token of x/*",
        ),
        ({"requestIdentityMatcher": {"notRequestPrincipals": ["*"]}}, "no token of *"),
    ],
)
def test_callers_of_an_access_policy_are_told_in_words(selector: dict[str, Any], words: str) -> None:
    spec = msgspec.convert({"sourceSelector": [selector]}, AccessPolicySpec)

    assert callers(spec) == words
    assert callers(AccessPolicySpec()) == "anybody"

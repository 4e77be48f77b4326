"""What is said of roots, certificates and trust domains: good when all is done, and found when one thing is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from isthmus.api.discovery import Mesh
from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.parse import parse
from isthmus.api.pod_bounce_directive import PodBounceDirective
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.check_trust import check_trust
from isthmus.cli.checks import Check, Observed, check_management
from isthmus.model import kinds
from isthmus.pki import make_root, new_key
from isthmus.translate import Engine
from tests.unit.cli.meshctl import Clusters, meshctl, with_our_kinds
from tests.unit.cli.test_checks import management

Manifest = dict[str, Any]

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAMES = {n: f"istiod-istio-system-cluster{n}" for n in (1, 2)}


@cache
def root(name: str, left: timedelta = timedelta(days=3650)) -> str:
    """One that has been there for a year, and ends after what is *left*."""
    year = timedelta(days=365)
    made = make_root(new_key(), common_name=name, serial=1, now=NOW - year, life=year + left)
    return made.certificate.decode()


def status(**changes: Any) -> Manifest:
    return {
        "observedGeneration": 1,
        "state": "FINISHED",
        "observedTrust": "t1",
        "notAfter": "2027-11-01T00:00:00Z",
        "workloads": {"observedTrust": "t1", "shared": 8, "presumed": 1},
        **changes,
    }


def mesh(n: int) -> Manifest:
    return {
        "apiVersion": Mesh.KIND.api_version,
        "kind": "Mesh",
        "metadata": {"name": NAMES[n], "namespace": "gloo-mesh"},
        "spec": {
            "istio": {
                "installation": {"namespace": "istio-system", "cluster": f"cluster{n}"},
                "trustDomain": f"cluster{n}",
            },
            "agentInfo": {"agentNamespace": "gloo-mesh"},
            "issuedCertificateStatus": status(),
        },
    }


def virtual_mesh() -> Manifest:
    return {
        "apiVersion": VirtualMesh.KIND.api_version,
        "kind": "VirtualMesh",
        "metadata": {"name": "vm", "namespace": "gloo-mesh"},
        "spec": {
            "mtlsConfig": {"shared": {"rootCertificateAuthority": {"generated": {}}}},
            "meshes": [{"name": name, "namespace": "gloo-mesh"} for name in NAMES.values()],
        },
    }


def secret(name: str, namespace: str, pem: str) -> Manifest:
    data = {"ca-cert.pem": base64.b64encode(pem.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}


def certificate(n: int) -> Manifest:
    return {
        "apiVersion": IssuedCertificate.KIND.api_version,
        "kind": "IssuedCertificate",
        "metadata": {"name": NAMES[n], "namespace": "gloo-mesh", "creationTimestamp": "2026-11-12T12:00:00Z"},
        "spec": {},
        "status": status(),
    }


def root_map(*pems: str) -> Manifest:
    metadata = {"name": "istio-ca-root-cert", "namespace": "istio-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"root-cert.pem": "".join(pems)}}


def agent(*args: str) -> Manifest:
    template = {"spec": {"containers": [{"name": "enterprise-agent", "args": list(args)}]}}
    metadata = {"name": "enterprise-agent", "namespace": "gloo-mesh"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}}


class Fleet:
    """What was fetched of a fleet in which all is done, to be spoilt."""

    def __init__(self) -> None:
        self.virtual_mesh = virtual_mesh()
        self.meshes = {n: mesh(n) for n in NAMES}
        self.secrets = [secret("vm.gloo-mesh", "gloo-mesh", root("one"))]
        self.certificates = {n: certificate(n) for n in NAMES}
        self.directives: dict[int, list[Manifest]] = {n: [] for n in NAMES}
        self.roots = {n: [root("one")] for n in NAMES}
        self.agent = agent()
        self.seen = {1, 2}

    def check(self) -> tuple[Check, ...]:
        objects: dict[Any, tuple[Manifest, ...]] = {
            VirtualMesh.KIND: (self.virtual_mesh,),
            Mesh.KIND: tuple(self.meshes.values()),
            kinds.SECRET: tuple(self.secrets),
        }
        clusters: dict[str, Observed | None] = {
            f"cluster{n}": Observed(
                f"cluster{n}",
                objects={
                    kinds.CONFIG_MAP: (root_map(*self.roots[n]),),
                    kinds.DEPLOYMENT: (self.agent,),
                    IssuedCertificate.KIND: (self.certificates[n],),
                    PodBounceDirective.KIND: tuple(self.directives[n]),
                },
            )
            if n in self.seen
            else None
            for n in NAMES
        }
        return check_trust(Observed("mgmt", objects=objects), clusters, NOW)

    def found(self) -> dict[str, str]:
        """What does not hold: by cluster and name."""
        return {f"{c.cluster}: {c.name}": f"{c.state}: {c.message}" for c in self.check() if c.state != "ok"}


def test_all_is_good_when_all_is_done() -> None:
    checks = Fleet().check()

    assert [check for check in checks if check.state != "ok"] == []
    assert not any(check.remedy for check in checks)
    told = {check.name: check.message for check in checks if check.cluster != "cluster2"}
    mark = told.pop("One root for vm")
    assert len(mark) == 16
    assert told == {
        "Trust domains within vm": "none passes for another, none is refused",
        "Root of vm": "Secret gloo-mesh/vm.gloo-mesh, valid until 2036-11-19",
        f"Certificate of {NAMES[1]}": "FINISHED, 10 days old, valid until 2027-11-01",
        f"Restarts of {NAMES[1]}": "no pod runs with an older certificate",
        f"Workloads of {NAMES[1]}": "8 pods present certificates under the shared root; "
        "1 more show none, but started later than it was written",
    }


def test_of_a_cluster_that_no_context_leads_to_its_agent_has_told() -> None:
    fleet = Fleet()
    fleet.seen = {1}
    fleet.certificates[2]["status"] = status(state="FAILED", error="not this one")
    fleet.meshes[2]["spec"]["issuedCertificateStatus"] = status(outdatedPods={"count": 1, "names": ["default/a"]})

    assert fleet.found() == {f"cluster2: Restarts of {NAMES[2]}": "warning: 1 pod with an older certificate: default/a"}


def of_cluster1(**changes: Any) -> Callable[[Fleet], None]:
    return lambda fleet: fleet.certificates[1].update(status=status(**changes))


def waiting(fleet: Fleet) -> None:
    fleet.virtual_mesh["spec"]["mtlsConfig"]["autoRestartPods"] = True
    fleet.certificates[1]["status"] = status(state="ISSUED", outdatedPods={"count": 1, "names": ["default/a"]})
    directive = {
        "apiVersion": PodBounceDirective.KIND.api_version,
        "kind": "PodBounceDirective",
        "metadata": {"name": NAMES[1], "namespace": "gloo-mesh"},
        "spec": {},
        "status": {"waiting": ["Deployment default/a has the last ready pod of service a"]},
    }
    fleet.directives[1] = [directive]


def short_lived(fleet: Fleet) -> None:
    """A day long, renewed when a tenth is left: 72 minutes are overdue, the usual 30 days would always be."""
    fleet.virtual_mesh["spec"]["mtlsConfig"]["shared"]["intermediateCertOptions"] = {"ttlDays": 1}
    fleet.certificates[1]["status"] = status(notAfter="2026-11-22T13:11:00Z")
    fleet.certificates[2]["status"] = status(notAfter="2026-11-22T15:00:00Z")


def provided(*secrets: Manifest) -> Callable[[Fleet], None]:
    def change(fleet: Fleet) -> None:
        authority = {"secret": {"name": "mine", "namespace": "safe"}}
        fleet.virtual_mesh["spec"]["mtlsConfig"]["shared"]["rootCertificateAuthority"] = authority
        fleet.secrets = list(secrets)

    return change


def generated(*names: str) -> Callable[[Fleet], None]:
    """Roots that the server made, the last one about to end; and one of another VirtualMesh."""
    *before, last = names

    def change(fleet: Fleet) -> None:
        fleet.secrets = [secret(name, "gloo-mesh", root("one")) for name in (*before, "vm.gloo-mesh.other")]
        fleet.secrets.append(secret(last, "gloo-mesh", root("soon", timedelta(days=29))))

    return change


def two_roots(fleet: Fleet) -> None:
    fleet.roots[2] = [root("two")]


def joining(fleet: Fleet) -> None:
    two_roots(fleet)
    fleet.certificates[2]["status"] = status(state="REQUESTED", notAfter="")


def left_alone(fleet: Fleet) -> None:
    two_roots(fleet)
    del fleet.virtual_mesh["spec"]["mtlsConfig"]


def domains(fleet: Fleet) -> None:
    fleet.meshes[1]["spec"]["istio"]["trustDomainAliases"] = ["cluster2"]
    fleet.meshes[2]["spec"]["istio"]["refusesForeignTrustDomains"] = True


def others(fleet: Fleet) -> None:
    pods = [{"name": f"default/p{n}", "showsOther": n < 11, "reason": "why"} for n in range(12)]
    fleet.certificates[1]["status"]["workloads"] = {"observedTrust": "t1", "other": 11, "unknown": 1, "pods": pods}


ELEVEN = "; ".join(f"default/p{n}: why" for n in range(10)) + "; 1 more"
TAKEN = (
    "Secret istio-system/cacerts was made by somebody else and is left alone; delete it, or annotate it "
    "isthmus.io/take-over=true to have it overwritten"
)
NOT_KNOWN = "warning: it is not known yet what they present"
FAULTS: dict[str, tuple[Callable[[Fleet], None], dict[str, str]]] = {
    "root-is-gone": (
        lambda fleet: fleet.secrets.clear(),
        {"management: Root of vm": "error: Secret gloo-mesh/vm.gloo-mesh is missing: nothing can be signed"},
    ),
    "root-ends-soon": (
        provided(secret("mine", "safe", root("soon", timedelta(days=29)))),
        {"management: Root of vm": "warning: Secret safe/mine ends on 2026-12-21"},
    ),
    "root-has-expired": (
        provided(secret("mine", "safe", root("past", timedelta(days=-1)))),
        {"management: Root of vm": "error: Secret safe/mine has expired on 2026-11-21"},
    ),
    "another-secret-of-that-name": (
        provided(secret("mine", "gloo-mesh", root("one"))),
        {"management: Root of vm": "error: Secret safe/mine is missing: nothing can be signed"},
    ),
    "generated-root-was-not-renewed": (
        generated("vm.gloo-mesh"),
        {"management: Root of vm": "warning: Secret gloo-mesh/vm.gloo-mesh ends on 2026-12-21"},
    ),
    "the-newest-generated-root-counts": (
        generated("vm.gloo-mesh", "vm.gloo-mesh.9", "vm.gloo-mesh.10"),
        {"management: Root of vm": "warning: Secret gloo-mesh/vm.gloo-mesh.10 ends on 2026-12-21"},
    ),
    "cacerts-of-somebody-else": (
        of_cluster1(state="FAILED", error=TAKEN),
        {f"cluster1: Certificate of {NAMES[1]}": f"error: {TAKEN}"},
    ),
    "certificate-is-on-its-way": (
        of_cluster1(state="REQUESTED", notAfter="", workloads=None),
        {f"cluster1: Certificate of {NAMES[1]}": "warning: REQUESTED, 10 days old: it is not there yet"},
    ),
    "certificate-ends-soon": (
        of_cluster1(notAfter="2026-12-21T12:00:00Z"),
        {
            f"cluster1: Certificate of {NAMES[1]}": "warning: FINISHED, 10 days old; it ends in 29 days, and should "
            "have been renewed"
        },
    ),
    "certificate-has-expired": (
        of_cluster1(notAfter="2026-11-22T11:59:00Z"),
        {f"cluster1: Certificate of {NAMES[1]}": "error: FINISHED, 10 days old; it expired on 2026-11-22 11:59 UTC"},
    ),
    "certificate-of-a-day": (
        short_lived,
        {
            f"cluster1: Certificate of {NAMES[1]}": "warning: FINISHED, 10 days old; it ends in 1 hour, and should "
            "have been renewed"
        },
    ),
    "pods-to-restart": (
        of_cluster1(state="ISSUED", outdatedPods={"count": 12, "names": [f"default/p{n}" for n in range(12)]}),
        {
            f"cluster1: Restarts of {NAMES[1]}": "warning: 12 pods with an older certificate: "
            + ", ".join(f"default/p{n}" for n in range(10))
            + ", 2 more"
        },
    ),
    "restarts-that-wait": (
        waiting,
        {
            f"cluster1: Restarts of {NAMES[1]}": "warning: 1 pod with an older certificate: default/a; "
            "Deployment default/a has the last ready pod of service a"
        },
    ),
    "workloads-under-another-root": (
        others,
        {f"cluster1: Workloads of {NAMES[1]}": f"error: 11 pods with another certificate: {ELEVEN}"},
    ),
    "workloads-before-their-restart": (
        of_cluster1(
            state="ISSUED",
            outdatedPods={"count": 1, "names": ["default/a"]},
            workloads={
                "observedTrust": "t1",
                "other": 1,
                "pods": [{"name": "default/a", "showsOther": True, "reason": "why"}],
            },
        ),
        {
            f"cluster1: Restarts of {NAMES[1]}": "warning: 1 pod with an older certificate: default/a",
            f"cluster1: Workloads of {NAMES[1]}": "warning: 1 pod with another certificate: default/a: why",
        },
    ),
    "workloads-that-show-nothing": (
        of_cluster1(workloads={"observedTrust": "t1", "unknown": 1, "pods": [{"name": "default/a", "reason": "mute"}]}),
        {
            f"cluster1: Workloads of {NAMES[1]}": "warning: 1 pod older than the certificate and not seen to present "
            "it: default/a: mute"
        },
    ),
    "workloads-not-looked-at": (of_cluster1(workloads=None), {f"cluster1: Workloads of {NAMES[1]}": NOT_KNOWN}),
    "workloads-of-the-root-before": (
        of_cluster1(workloads={"observedTrust": "t0", "other": 9}),
        {f"cluster1: Workloads of {NAMES[1]}": NOT_KNOWN},
    ),
    "trust-domains": (
        domains,
        {
            "management: Trust domains within vm": f"warning: trustDomainAliases of mesh {NAMES[1]}.gloo-mesh. hold "
            "cluster2, the trust domain of another mesh of this virtual mesh: identities of cluster2 pass where a "
            f"policy names those of cluster1; take the alias away; sidecars of mesh {NAMES[2]}.gloo-mesh. refuse "
            "callers of cluster1: its istiod runs without PILOT_SKIP_VALIDATE_TRUST_DOMAIN=true; set that in "
            "istiod's env"
        },
    ),
}


@pytest.mark.parametrize(("change", "expected"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_found(change: Callable[[Fleet], None], expected: dict[str, str]) -> None:
    fleet = Fleet()
    change(fleet)

    assert fleet.found() == expected
    assert all(check.remedy for check in fleet.check() if check.state != "ok")


@pytest.mark.parametrize(("change", "state"), [(two_roots, "error"), (joining, "warning"), (left_alone, "warning")])
def test_different_roots_are_told_by_their_fingerprints(change: Callable[[Fleet], None], state: str) -> None:
    fleet = Fleet()
    change(fleet)

    found = fleet.found()["management: One root for vm"]

    assert found.startswith(f"{state}: istiod hands out different roots, so calls between clusters fail; cluster1/")
    marks = [part.rpartition(": ")[2] for part in found.split("; ")[1:]]
    assert [len(mark) for mark in marks] == [16, 16]
    assert marks[0] != marks[1]


def test_while_a_root_is_replaced_one_in_common_is_enough() -> None:
    fleet = Fleet()
    fleet.roots = {1: [root("two"), root("one")], 2: [root("one")]}

    assert fleet.found() == {}


def test_who_does_not_want_pods_to_be_looked_at_is_not_warned() -> None:
    fleet = Fleet()
    fleet.agent = agent("--verify-workloads=false")
    for each in fleet.certificates.values():
        each["status"]["workloads"] = None

    assert fleet.found() == {}


def test_secrets_that_may_not_be_read_are_not_called_missing() -> None:
    objects: dict[Any, tuple[Manifest, ...]] = {VirtualMesh.KIND: (virtual_mesh(),), Mesh.KIND: (mesh(1),)}
    seen = Observed("mgmt", objects=objects, refused={kinds.SECRET: "no"})

    assert not any(check.name == "Root of vm" for check in check_trust(seen, {}, NOW))


def test_limited_trust_is_refused_with_object_field_and_what_to_do() -> None:
    engine = Engine()
    manifest = virtual_mesh()
    manifest["spec"]["mtlsConfig"] = {"limited": {}}
    limited = parse(manifest)
    assert isinstance(limited, VirtualMesh)
    engine.set(limited)
    engine.run()
    [said] = [engine.status(key) for key in engine.status_keys() if key.kind == VirtualMesh.KIND]
    seen = management()
    seen.objects[VirtualMesh.KIND] = ({**manifest, "status": msgspec.to_builtins(said)},)  # type: ignore[index]

    found = {check.name: check.message for check in check_management(seen, NOW) if check.state == "error"}

    assert found["Policies"].startswith("VirtualMesh gloo-mesh/vm is INVALID: ")
    problem = "spec.mtlsConfig.limited: limited trust is not implemented: use shared, or leave mtlsConfig out"
    assert problem in found["Policies"]
    assert not any(check.name.startswith(("Root of", "Certificate of")) for check in check_trust(seen, {}, NOW))


def test_the_command_says_it_with_its_cluster(running_fleet: Clusters) -> None:
    result = meshctl("check", "--kubecontext", "mgmt", "-o", "json", kubeconfig=running_fleet.kubeconfig)

    assert result.exit_code == 1
    checks = json.loads(result.stdout)
    assert [check["cluster"] for check in checks] == sorted(
        (check["cluster"] for check in checks), key=["management", "cluster1", "cluster2"].index
    )
    found = {(check["cluster"], check["name"]): check for check in checks}
    assert found["management", "Root of vm"]["message"] == "Secret safe/mine, valid until 2036-11-19"
    assert found["management", "One root for vm"]["state"] == "ok"
    assert found["cluster1", f"Restarts of {NAMES[1]}"]["message"] == "1 pod with an older certificate: default/a"
    assert found["cluster1", f"Restarts of {NAMES[1]}"]["remedy"] == (
        f"`meshctl mesh restart --mesh-name {NAMES[1]}` restarts them, istiod first"
    )


@pytest.fixture
def running_fleet(tmp_path: Path) -> Iterator[Clusters]:
    """A management plane and two clusters, as the command fetches them."""
    with Clusters(tmp_path, ["mgmt", "cluster1", "cluster2"]).running() as running:
        load(running)
        yield running


def load(running: Clusters) -> None:
    fleet = Fleet()
    provided()(fleet)
    for name in ("mgmt", "cluster1", "cluster2"):
        with_our_kinds(running, name)
    registered = [
        {
            "apiVersion": "multicluster.solo.io/v1alpha1",
            "kind": "KubernetesCluster",
            "metadata": {"name": f"cluster{n}", "namespace": "gloo-mesh"},
            "spec": {},
        }
        for n in NAMES
    ]
    safe = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "safe"}}
    root_of_mine = secret("mine", "safe", root("one"))
    running.load("mgmt", safe, root_of_mine, fleet.virtual_mesh, *fleet.meshes.values(), *registered)
    of_cluster1(state="ISSUED", outdatedPods={"count": 1, "names": ["default/a"]})(fleet)
    for n in NAMES:
        system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}
        plane = deepcopy(agent())
        plane["metadata"] = {"name": "istiod", "namespace": "istio-system"}
        plane["spec"]["selector"] = {"matchLabels": {"app": "istiod"}}
        plane["spec"]["template"]["metadata"] = {"labels": {"app": "istiod"}}
        plane["spec"]["template"]["spec"]["containers"][0]["image"] = "istio/pilot:1.31.1"
        running.load(f"cluster{n}", system, plane, root_map(root("one")), fleet.certificates[n])

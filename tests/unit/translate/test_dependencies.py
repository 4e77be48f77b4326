"""Whose status says that a proxy could not be told what its workload calls."""

from __future__ import annotations

from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec
from isthmus.api.common import ApprovalState, ClusterObjectRef, IdentitySelector, KubeServiceAccountRefs
from isthmus.api.service_dependency import ServiceDependency, ServiceDependencySpec, ServiceDependencyStatus
from isthmus.api.virtual_mesh import ProxyScope, VirtualMeshStatus
from isthmus.istio.objects import Sidecar
from isthmus.translate import Engine
from isthmus.translate.output import OutputKey, StatusKey
from tests.unit.translate.fleets import engine_of, mesh, mesh_ref, meta, service, virtual_mesh, workload

CALLER = ClusterObjectRef(name="default", namespace="default", cluster_name="cluster1")
ALLOWED = AccessPolicy(
    metadata=meta("client"),
    spec=AccessPolicySpec(
        source_selector=(IdentitySelector(kube_service_account_refs=KubeServiceAccountRefs((CALLER,))),)
    ),
)


FLEET = (mesh("cluster1"), service("cluster1", "reviews"), workload("cluster1", "client"))


def sidecars(engine: Engine) -> list[OutputKey]:
    return [key for key, output in engine.outputs().items() if isinstance(output.object, Sidecar)]


def test_where_only_the_virtual_mesh_wants_it_that_says_so_of_the_mesh() -> None:
    scoped = virtual_mesh("cluster1", scope=ProxyScope.ACCESS_POLICIES)
    engine = engine_of((*FLEET, scoped, ALLOWED))
    engine.run()
    (sidecar,) = sidecars(engine)

    engine.write_error(sidecar, "no room")
    engine.run()

    found = engine.status(StatusKey(scoped.KIND, "gloo-mesh", "virtual-mesh"))
    assert isinstance(found, VirtualMeshStatus)
    at = found.meshes[f"{mesh_ref('cluster1').name}.gloo-mesh."]
    assert at.state is ApprovalState.FAILED
    assert at.errors == ("write error: Sidecar default/client on cluster cluster1: no room",)


def test_where_a_dependency_wants_it_that_says_so_of_the_workload() -> None:
    dependency = ServiceDependency(metadata=meta("client"), spec=ServiceDependencySpec())
    engine = engine_of((*FLEET, virtual_mesh("cluster1"), dependency))
    engine.run()
    (sidecar,) = sidecars(engine)

    engine.write_error(sidecar, "no room")
    engine.run()

    found = engine.status(StatusKey(dependency.KIND, "gloo-mesh", "client"))
    assert isinstance(found, ServiceDependencyStatus)
    assert found.state is ApprovalState.FAILED
    assert found.workloads["client-default-cluster1.gloo-mesh."].state is ApprovalState.FAILED

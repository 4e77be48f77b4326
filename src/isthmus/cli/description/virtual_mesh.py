"""What `meshctl describe` says about a VirtualMesh."""

from __future__ import annotations

from isthmus.api.common import ObjectRef
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.description.parts import Known, Parts, Section, gateway_rows, listed, outcome_facts, state_of


def describe(virtual_mesh: VirtualMesh, known: Known) -> Parts:
    """The parts of a virtual mesh, with its meshes, gateways and federated destinations."""
    spec, status = virtual_mesh.spec, virtual_mesh.status
    meshes = {mesh.metadata.name: mesh for mesh in known.meshes}
    outcomes = status.meshes if status else {}
    rows, gateways = [], []
    for ref in spec.meshes:
        mesh = meshes.get(ref.name)
        istio = mesh.spec.istio if mesh else None
        rows.append(
            (
                ref.name,
                istio.installation.cluster if istio else "",
                istio.installation.version if istio else "",
                istio.trust_domain if istio else "",
                state_of(outcomes.get(ref.ref.key)) if mesh else "not discovered",
            )
        )
        if mesh and mesh.status:
            gateways += [(ref.name, *row) for row in gateway_rows(mesh)]
    federated = []
    for destination in known.destinations:
        applied = destination.status.applied_federation if destination.status else None
        if applied is not None and applied.virtual_mesh_ref == ObjectRef(
            name=virtual_mesh.metadata.name, namespace=virtual_mesh.metadata.namespace
        ):
            federated.append(
                (destination.metadata.name, applied.federated_hostname, listed(applied.federated_to_meshes))
            )
    federation = spec.federation
    facts = {
        **outcome_facts(virtual_mesh),
        "Federation": _federation_stance(virtual_mesh),
        "Host names end in": "." + (federation.hostname_suffix or "global") if federation else "",
        "Access": spec.global_access_policy.value,
        "Trust": _trust(virtual_mesh),
    }
    return facts, [
        Section("Meshes", ("MESH", "CLUSTER", "ISTIO", "TRUST DOMAIN", "STATE"), tuple(rows)),
        Section("East-west gateways", ("MESH", "GATEWAY", "ADDRESS", "PORT"), tuple(gateways)),
        Section("Federated destinations", ("DESTINATION", "HOST NAME", "KNOWN TO"), tuple(sorted(federated))),
    ]


def _federation_stance(virtual_mesh: VirtualMesh) -> str:
    federation = virtual_mesh.spec.federation
    if federation is None:
        return "none"
    if not federation.selectors:
        return "every destination, to every mesh"
    return f"what {len(federation.selectors)} selector{'s' * (len(federation.selectors) > 1)} choose"


def _trust(virtual_mesh: VirtualMesh) -> str:
    shared = virtual_mesh.spec.mtls_config.shared if virtual_mesh.spec.mtls_config else None
    if shared is None:
        return "as each mesh has it"
    root = shared.root_certificate_authority
    if root is not None and root.secret is not None:
        return f"shared, root in Secret {root.secret.namespace}/{root.secret.name}"
    if shared.intermediate_certificate_authority is not None:
        return "shared, signed by Vault"
    return "shared, generated root"

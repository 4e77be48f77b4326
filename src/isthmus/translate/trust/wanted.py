"""The root that a VirtualMesh asks for, and how the Secrets of generated ones are named."""

from __future__ import annotations

import msgspec

from isthmus.api.common import CommonCertOptions, ObjectRef
from isthmus.api.virtual_mesh import SharedTrust, VirtualMesh
from isthmus.model.problem import Problem
from isthmus.translate.trust.facts import ROOT_ORGANIZATION, with_defaults
from isthmus.translate.trust.objects import TARGET

PATH = "spec.mtlsConfig.shared.rootCertificateAuthority"


class Wanted(msgspec.Struct, frozen=True):
    """The Secret that a VirtualMesh asks for. *generated* None: the user provides it.

    Else *secret* is the first one; see `numbered` for its successors.
    """

    secret: ObjectRef
    trust: SharedTrust
    generated: CommonCertOptions | None = None


def wanted_root(virtual_mesh: VirtualMesh, namespace: str) -> Wanted | Problem | None:
    """The root that *virtual_mesh* asks for, None if it leaves certificates alone or says nothing that can be done."""
    config = virtual_mesh.spec.mtls_config
    shared = config.shared if config is not None else None
    authority = shared.root_certificate_authority if shared is not None else None
    if shared is None or authority is None:
        return None
    if authority.secret is not None:
        if not (authority.secret.name and authority.secret.namespace):
            return None  # the engine says so
        if authority.secret.name == TARGET:
            message = f"the root may not be in a Secret called {TARGET}, which Istio reads: copy it to another"
            return Problem(f"{PATH}.secret", "ReservedName", message)
        return Wanted(authority.secret, shared)
    meta = virtual_mesh.metadata
    secret = ObjectRef(name=f"{meta.name}.{meta.namespace}", namespace=namespace)
    return Wanted(secret, shared, with_defaults(authority.generated, ROOT_ORGANIZATION))


def numbered(first: ObjectRef, number: int) -> ObjectRef:
    """The Secret of the generated root that replaces the one before it, 0 for the first."""
    return ObjectRef(name=f"{first.name}.{number}", namespace=first.namespace) if number else first


def number_in(first: ObjectRef, secret: ObjectRef) -> int | None:
    """Which of those that `numbered` tells *secret* is."""
    if secret == first:
        return 0
    number = secret.name.removeprefix(f"{first.name}.")
    plain = number.isascii() and number.isdigit() and not number.startswith("0")
    return int(number) if plain and secret == numbered(first, int(number)) else None

"""Where the trust domains of one virtual mesh are in each other's way: taken for each other, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from isthmus.api.discovery import Mesh
from isthmus.model.ref import Ref
from isthmus.translate.trust.facts import DEFAULT_TRUST_DOMAIN


class DomainFacts(msgspec.Struct, frozen=True, gc=False):
    """What a mesh makes of trust domains."""

    own: str
    aliases: tuple[str, ...]
    refuses: bool
    """Whether callers of any domain that it does not name are refused."""
    accepted: tuple[str, ...]
    """What it names beside its aliases."""


def domain_facts(_: Ref, mesh: Mesh) -> DomainFacts | None:
    """Facts of an Istio mesh, None for any other kind."""
    istio = mesh.spec.istio
    if istio is None:
        return None
    own = istio.trust_domain or DEFAULT_TRUST_DOMAIN
    return DomainFacts(
        own, istio.trust_domain_aliases, istio.refuses_foreign_trust_domains, istio.accepted_trust_domains
    )


def domain_warnings(mesh: Ref, facts: DomainFacts, others: Iterable[DomainFacts]) -> tuple[str, ...]:
    """What to warn of *mesh*, whose virtual mesh has the *others* as well."""
    foreign = sorted({other.own for other in others} - {facts.own})
    return (*_joined(mesh, facts, foreign), *_refused(mesh, facts, foreign))


def _joined(mesh: Ref, facts: DomainFacts, foreign: list[str]) -> Iterator[str]:
    """Aliases by which one identity passes for another.

    With such an alias `cluster2/ns/default/sa/client` passes where a policy names `cluster1/ns/default/sa/client`.
    Source: https://istio.io/latest/docs/tasks/security/authorization/authz-td-migration/
    """
    for alias in facts.aliases:
        if alias in foreign:
            yield (
                f"trustDomainAliases of mesh {mesh.key} hold {alias}, the trust domain of another mesh of this virtual "
                f"mesh: identities of {alias} pass where a policy names those of {facts.own}; take the alias away"
            )


def _refused(mesh: Ref, facts: DomainFacts, foreign: list[str]) -> Iterator[str]:
    """Domains whose callers sidecars turn away.

    Source: https://github.com/istio/istio/blob/master/pilot/pkg/networking/plugin/authn/util.go
    """
    refused = [domain for domain in foreign if domain not in (*facts.aliases, *facts.accepted)]
    if facts.refuses and refused:
        yield (
            f"sidecars of mesh {mesh.key} refuse callers of {', '.join(refused)}: its istiod runs without "
            "PILOT_SKIP_VALIDATE_TRUST_DOMAIN=true; set that in istiod's env"
        )

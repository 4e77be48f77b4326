"""The Istio object of one external service. Source: reference, Destination."""

from __future__ import annotations

from isthmus.istio import objects as istio
from isthmus.model.hosts import MAX_HOSTNAME
from isthmus.model.names import sanitize
from isthmus.model.ref import Ref
from isthmus.translate.external_services.facts import ExternalFacts
from isthmus.translate.federation.objects import metadata

_OWN = ".external"


def own_name(ref: Ref) -> str:
    """A name for the object of *ref* that is nobody else's."""
    name = f"{ref.name}.{ref.namespace}{_OWN}"
    return name if len(name) <= MAX_HOSTNAME else sanitize(name)


def may_be_own(name: str) -> bool:
    """Whether *name* may be an `own_name`."""
    return name.endswith(_OWN)


def entry(
    name: str, facts: ExternalFacts, namespace: str, addresses: tuple[str, ...], annotations: dict[str, str]
) -> istio.ServiceEntry:
    """The ServiceEntry called *name* by which a mesh knows *facts*."""
    return istio.ServiceEntry(
        metadata=metadata(name, namespace, annotations),
        spec=istio.ServiceEntrySpec(
            hosts=facts.hosts,
            addresses=addresses,
            ports=facts.ports,
            location="MESH_EXTERNAL",
            resolution=facts.resolution,
            endpoints=facts.endpoints,
        ),
    )

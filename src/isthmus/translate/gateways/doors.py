"""What connections to the ports of gateways are like, of which Istio's Gateway cannot say it, as EnvoyFilters.

EnvoyFilters act on pods and their ports, so what VirtualGateways say is gathered by these, whichever Services lead
there. Of several that listen at a port the oldest says what the port is like.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from isthmus.api.virtual_gateway import VirtualGateway
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.istio.objects import ConfigPatch
from isthmus.model.ref import Ref
from isthmus.translate.gateways import objects
from isthmus.translate.gateways.connections import Door, ListenerSettings, door_of, listener_patches, passing_patches
from isthmus.translate.gateways.derivations import Bound, Gateways, Served, ServedKey
from isthmus.translate.gateways.findings import Finding, Weight, findings_of
from isthmus.translate.gateways.listeners import HANDLER, ListenerFacts
from isthmus.translate.gateways.objects import IngressGateway
from isthmus.translate.output import Output, OutputKey, StatusKey
from isthmus.translate.parents import parents_annotation
from isthmus.translate.seniority import Seniority

AUTOMATIC = "AUTO_PASSTHROUGH"


class Listening(msgspec.Struct, frozen=True, gc=False):
    """A VirtualGateway that has the pods behind a service listen, at a door."""

    seniority: Seniority
    virtual_gateway: Ref
    service: Ref
    settings: ListenerSettings

    @property
    def rank(self) -> tuple[Seniority, Ref, Ref]:
        """The first of those at a door says what it is like."""
        return self.seniority, self.virtual_gateway, self.service


class Patched(msgspec.Struct, frozen=True, gc=False):
    """What a VirtualGateway changes at each of its gateways, and what of it has no effect."""

    changes: tuple[tuple[IngressGateway, tuple[ConfigPatch, ...]], ...]
    findings: tuple[Finding, ...]


class Doors:
    """The collections of what VirtualGateways say of connections."""

    def __init__(self, graph: Graph, gateways: Gateways) -> None:
        self._gateways = gateways
        listening = graph.expand("virtual gateways at doors", gateways.served, _listening)
        self._listening: Index[Door, tuple[Door, ServedKey], Listening] = graph.index(
            "virtual gateways by door", listening, first_part
        )
        patched: Collection[Ref, Patched] = graph.derive("connections to gateways", gateways.serving, self._patch)
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (
            graph.expand("filters of connections to gateways", patched, _write),
        )
        self.findings: tuple[Index[StatusKey, tuple[StatusKey, Ref], tuple[Finding, ...]], ...] = (
            graph.index("findings of connections to gateways by object", findings_of(graph, patched), first_part),
        )

    def _patch(self, fetch: Fetch, ref: Ref, bound: Bound) -> Patched:
        changes: list[tuple[IngressGateway, tuple[ConfigPatch, ...]]] = []
        findings: list[Finding] = []
        for gateway in bound.gateways:
            names = self._gateways.names_at(fetch, ref, gateway)
            if not names:
                continue
            patches, warnings = self._change(fetch, bound.listener, gateway, names)
            where = f"port {gateway.port.name} of gateway {gateway.where.key}"
            findings += (Finding(bound.listener.key, Weight.WARNING, f"{where}: {text}") for text in warnings)
            if patches:
                changes.append((gateway, patches))
        return Patched(tuple(changes), tuple(findings))

    def _change(
        self, fetch: Fetch, listener: ListenerFacts, gateway: IngressGateway, names: tuple[str, ...]
    ) -> tuple[tuple[ConfigPatch, ...], tuple[str, ...]]:
        """What *listener* changes at *gateway*, where it listens for *names*; and what it cannot."""
        door = door_of(gateway.service, gateway.port)
        if door is None:
            says = listener.passing or listener.settings != ListenerSettings()
            text = f"has targetPort {gateway.port.target_port_name}; what is said of connections needs one by number"
            return (), (text,) if says else ()
        port, patches, warnings = door[-1], list[ConfigPatch](), list[str]()
        at = [listening for _, listening in fetch.group(self._listening, door)]
        first = min(at, key=lambda listening: listening.rank)
        if (first.virtual_gateway, first.service) == (listener.ref, gateway.service.ref):
            patches += listener_patches(port, listener.settings)
        elif _misses(listener.settings, first.settings):
            warnings.append(_differs(first))
        if listener.passing:
            alone = all(other.virtual_gateway == listener.ref for other in at)
            if listener.server_names and listener.tls is not None and listener.tls.mode == AUTOMATIC:
                warnings.append(f"{HANDLER}.tcp.options has no effect: {AUTOMATIC} takes no serverNames with it")
            elif listener.server_names:
                patches += passing_patches(port, names, listener.passing)
            elif alone and not self._gateways.is_east_west(fetch, door):
                patches += passing_patches(port, (), listener.passing)
            else:
                warnings.append(f"{HANDLER}.tcp.options has no effect where others listen too: name serverNames")
        return tuple(patches), tuple(warnings)


def _listening(_: Fetch, key: ServedKey, served: Served) -> Iterator[tuple[tuple[Door, ServedKey], Listening]]:
    listener, gateway = served.listener, served.gateway
    door = door_of(gateway.service, gateway.port)
    if door is not None and served.domains:
        yield (door, key), Listening(listener.seniority, listener.ref, gateway.service.ref, listener.settings)


def _misses(own: ListenerSettings, said: ListenerSettings) -> bool:
    """Whether who wants what is its *own* is to be told that *said* counts; not who says nothing, but for headers."""
    return own != said and (own != ListenerSettings() or said.proxy_protocol)


def _differs(first: Listening) -> str:
    settings, older = first.settings, first.virtual_gateway
    limit = "omitted" if settings.buffer_limit is None else settings.buffer_limit
    return (
        f"VirtualGateway {older.name}.{older.namespace}, which is older, says what connections are like: "
        f"enableProxyProtocol {str(settings.proxy_protocol).lower()}, perConnectionBufferLimitBytes {limit}"
    )


def _write(_: Fetch, ref: Ref, patched: Patched) -> Iterator[tuple[OutputKey, Output]]:
    whose = (StatusKey(VirtualGateway.KIND, ref.namespace, ref.name),)
    for gateway, patches in patched.changes:
        made = objects.connections_filter(ref, gateway, patches, parents_annotation(whose))
        yield OutputKey(gateway.cluster, made.key), Output(made, whose, gateway.service.ref)

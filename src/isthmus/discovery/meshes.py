"""Istio's control planes: which they are, what their mesh config says, and which of them governs what.

Source: reference, discovery §2; https://istio.io/latest/docs/setup/upgrade/canary/ for revisions and tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import yaml

from isthmus.api.common import ObjectRef
from isthmus.api.discovery import AgentInfo, IstioMesh, Mesh, MeshInstallation, MeshSpec, MeshStatus
from isthmus.discovery import inputs
from isthmus.discovery.naming import Claim, Site, copied_annotations
from isthmus.model.problem import Problem

DEFAULT_REVISION = "default"  # what Istio calls the control plane that was installed without a revision

SKIP_VALIDATION = "PILOT_SKIP_VALIDATE_TRUST_DOMAIN"
TRUE = ("1", "t", "T", "TRUE", "true", "True")  # what Go's strconv.ParseBool takes for true

MAX_DEPTH = 50  # of a mesh config; Istio's own has less than ten levels

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ControlPlane(msgspec.Struct, frozen=True, gc=False):
    """A Deployment of istiod."""

    claim: Claim
    plain_name: str
    annotations: dict[str, str]
    pod_labels: dict[str, str]
    version: str
    service_account: str
    validates_trust_domains: bool
    """Whether its sidecars refuse callers of trust domains that its mesh config does not name."""
    revision: str
    config_map: str
    """Name of the ConfigMap that holds its mesh config."""
    injector: str
    """Name of the ConfigMap that holds its injection rules."""
    problems: tuple[Problem, ...]


class MeshConfig(msgspec.Struct, frozen=True, gc=False):
    """What we read of a mesh config."""

    trust_domain: str = ""
    aliases: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    """Trust domains of further CA certificates."""
    dns_capture: bool = False


class MeshConfigFacts(msgspec.Struct, frozen=True, gc=False):
    """The mesh config of a ConfigMap: the newest that could be read, and what is wrong with the present one."""

    config: MeshConfig | None
    problems: tuple[Problem, ...] = ()


class Requirement(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One expression of a Kubernetes label selector."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class LabelSelector(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A Kubernetes label selector."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[Requirement, ...] | None = None

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether *labels* match; an empty selector selects nothing, as in Istio's injector."""
        pairs, expressions = self.match_labels or {}, self.match_expressions or ()
        return (
            bool(pairs or expressions)
            and all(labels.get(key) == value for key, value in pairs.items())
            and all(_meets(requirement, labels) for requirement in expressions)
        )


class Injector(msgspec.Struct, frozen=True, gc=False):
    """Injection rules of one control plane."""

    by_default: bool = False
    """Whether pods in namespaces that say nothing are injected."""
    never: tuple[LabelSelector, ...] = ()
    always: tuple[LabelSelector, ...] = ()
    problems: tuple[Problem, ...] = ()


class FoundMesh(msgspec.Struct, frozen=True, gc=False):
    """What came of a control plane: the Mesh if its config is known, and problems."""

    claim: Claim
    name: str
    revision: str
    injector: str
    resource: Mesh | None
    problems: tuple[Problem, ...]


class Member(msgspec.Struct, frozen=True, gc=False):
    """One mesh as workloads see it."""

    ref: ObjectRef
    revision: str
    root_namespace: str
    injector: Injector


class Roster(msgspec.Struct, frozen=True, gc=False):
    """The meshes of a cluster, oldest first, and the names that their revisions go by."""

    members: tuple[Member, ...] = ()
    tags: dict[str, str] = {}
    """Revision by tag."""

    @property
    def default(self) -> Member | None:
        """The mesh of whatever names no revision: tag ``default``, else the unnamed revision, else the oldest."""
        return self.named(DEFAULT_REVISION) or next(iter(self.members), None)

    def named(self, revision: str) -> Member | None:
        """The mesh with this revision or tag. A tag is looked at first, as it may take over a revision's name."""
        for wanted in (self.tags.get(revision), revision):
            for member in self.members:
                if member.revision == wanted:
                    return member
        return None


def control_plane(site: Site, deployment: inputs.ControllerView) -> ControlPlane | None:
    """The control plane that *deployment* runs, None if it is not istiod."""
    metadata = deployment.metadata
    template = deployment.spec.template or inputs.PodTemplate()
    spec = template.spec or inputs.TemplateSpec()
    if not metadata.name.startswith("istiod"):
        return None
    pilots = (c for c in spec.containers or () if c.image and "istio" in c.image and "pilot" in c.image)
    if (pilot := next(pilots, None)) is None:
        return None
    suffix = metadata.name.removeprefix("istiod")
    namespace = metadata.namespace or "default"
    annotations, problems = copied_annotations(metadata.annotations)
    return ControlPlane(
        claim=Claim(metadata.creation_timestamp or "", namespace, metadata.name),
        plain_name=site.plain_name(namespace, metadata.name),
        annotations=annotations,
        pod_labels=(deployment.spec.selector and deployment.spec.selector.match_labels) or {},
        version=image_version(pilot.image or ""),
        service_account=spec.service_account_name or "",
        validates_trust_domains=_validates_trust_domains(pilot),
        revision=suffix.removeprefix("-") or DEFAULT_REVISION,
        config_map=f"istio{suffix}",
        injector=f"istio-sidecar-injector{suffix}",
        problems=problems,
    )


def _validates_trust_domains(pilot: inputs.TemplateContainer) -> bool:
    """Whether sidecars are told to refuse foreign trust domains; not if that depends on what is not in the template.

    Source: https://istio.io/latest/docs/reference/commands/pilot-discovery/#envvars
    """
    given = next((variable for variable in pilot.env or () if variable.name == SKIP_VALIDATION), None)
    return given is None or (given.value is not None and given.value not in TRUE)


def image_version(image: str) -> str:
    """The tag of *image*, its digest if there is no tag, empty if there is neither."""
    path, _, digest = image.partition("@")
    _, _, tag = path.rpartition("/")[2].partition(":")
    return tag or digest


def mesh_config(config_map: inputs.ConfigMapView, known: MeshConfig | None) -> MeshConfigFacts | None:
    """The mesh config in *config_map*, None if it holds none.

    While the present text cannot be read, *known*, read from the same ConfigMap before, stays in force, as in istiod:
    a slip in one cluster's config must not take its services away from all others.
    """
    text = (config_map.data or {}).get("mesh")
    if text is None:
        return None
    config = parse_mesh_config(text)
    if isinstance(config, Problem):
        return MeshConfigFacts(known, (config,))
    return MeshConfigFacts(config)


def parse_mesh_config(text: str) -> MeshConfig | Problem:
    """What we read of the mesh config *text*. Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/"""
    data = _mapping(text)
    if isinstance(data, str):
        return Problem("data.mesh", "MeshConfigUnreadable", f"not a mesh config: {data}")
    try:
        raw = msgspec.convert(data, _RawMeshConfig)
    except msgspec.ValidationError as error:
        return Problem("data.mesh", "MeshConfigUnreadable", f"not a mesh config: {error}")
    metadata = (raw.defaultConfig and raw.defaultConfig.proxyMetadata) or {}
    return MeshConfig(
        trust_domain=raw.trustDomain or "",
        aliases=raw.trustDomainAliases or (),
        accepted=tuple(domain for each in raw.caCertificates or () for domain in each.trustDomains or ()),
        dns_capture=metadata.get("ISTIO_META_DNS_CAPTURE") == "true",
    )


def injector(config_map: inputs.ConfigMapView) -> Injector | None:
    """The injection rules in *config_map*, None if it holds none.

    ``policy: enabled`` alone injects nothing in namespaces that say nothing, because Istio's webhook is not called for
    them unless it was installed with ``enableNamespacesByDefault``; so both are needed.
    """
    data = config_map.data or {}
    if "config" not in data:
        return None
    config, values = _mapping(data["config"]), _mapping(data.get("values") or "{}")
    try:
        if isinstance(config, str):
            raise msgspec.ValidationError(config)
        rules = msgspec.convert(config, _RawInjectorConfig)
        webhook = msgspec.convert(values, _RawInjectorValues).sidecarInjectorWebhook or _RawWebhook()
    except msgspec.ValidationError as error:
        message = f"injection rules cannot be read, only labels and annotations count: {error}"
        return Injector(problems=(Problem("data.config", "InjectorConfigUnreadable", message),))
    return Injector(
        by_default=rules.policy == "enabled" and webhook.enableNamespacesByDefault is True,
        never=rules.neverInjectSelector or (),
        always=rules.alwaysInjectSelector or (),
    )


def revision_tag(webhook: inputs.MetadataView) -> tuple[str, str] | None:
    """The tag and the revision that it stands for, as ``istioctl tag set`` writes them in *webhook*'s labels."""
    labels = webhook.metadata.labels or {}
    tag, revision = labels.get("istio.io/tag", ""), labels.get("istio.io/rev", "")
    return (tag, revision) if tag and revision else None


def find_mesh(site: Site, plane: ControlPlane, name: str, config: MeshConfigFacts | None, region: str) -> FoundMesh:
    """The Mesh of *plane*, called *name*. Without a mesh config there is none: a guessed trust domain would harm."""
    problems = plane.problems
    mesh = None
    if config is None:
        where = f"ConfigMap {plane.claim.namespace}/{plane.config_map}"
        problems += (Problem("", "MeshConfigMissing", f"{where} with the key 'mesh' does not exist"),)
    else:
        problems += tuple(
            Problem(p.path, p.reason, f"ConfigMap {plane.claim.namespace}/{plane.config_map}: {p.message}")
            for p in config.problems
        )
    if config is not None and config.config is not None:
        mesh = Mesh(
            metadata=site.metadata(name, plane.annotations),
            spec=MeshSpec(
                istio=IstioMesh(
                    installation=MeshInstallation(
                        namespace=plane.claim.namespace,
                        cluster=site.cluster,
                        pod_labels=plane.pod_labels,
                        version=plane.version,
                        region=region,
                    ),
                    trust_domain=config.config.trust_domain,
                    trust_domain_aliases=config.config.aliases,
                    refuses_foreign_trust_domains=plane.validates_trust_domains,
                    accepted_trust_domains=config.config.accepted,
                    istiod_service_account=plane.service_account,
                    smart_dns_proxying_enabled=config.config.dns_capture,
                ),
                agent_info=AgentInfo(agent_namespace=site.agent_namespace),
            ),
            status=MeshStatus(warnings=tuple(str(p) for p in problems)) if problems else None,
        )
    return FoundMesh(plane.claim, name, plane.revision, plane.injector, mesh, problems)


def roster(site: Site, found: Iterable[tuple[FoundMesh, Injector | None]], tags: Iterable[tuple[str, str]]) -> Roster:
    """The meshes among *found*, each with its injection rules, and the *tags* of their revisions."""
    members = sorted(
        ((mesh, rules) for mesh, rules in found if mesh.resource is not None), key=lambda member: member[0].claim
    )
    return Roster(
        members=tuple(
            Member(
                ref=ObjectRef(name=mesh.name, namespace=site.namespace),
                revision=mesh.revision,
                root_namespace=mesh.claim.namespace,
                injector=rules or Injector(),
            )
            for mesh, rules in members
        ),
        tags=dict(tags),
    )


class _RawProxyConfig(msgspec.Struct):
    proxyMetadata: dict[str, Any] | None = None


class _RawCertificateData(msgspec.Struct):
    trustDomains: tuple[str, ...] | None = None


class _RawMeshConfig(msgspec.Struct):
    trustDomain: str | None = None
    trustDomainAliases: tuple[str, ...] | None = None
    caCertificates: tuple[_RawCertificateData, ...] | None = None
    defaultConfig: _RawProxyConfig | None = None


class _RawInjectorConfig(msgspec.Struct):
    policy: str | None = None
    neverInjectSelector: tuple[LabelSelector, ...] | None = None
    alwaysInjectSelector: tuple[LabelSelector, ...] | None = None


class _RawWebhook(msgspec.Struct):
    enableNamespacesByDefault: bool | None = None


class _RawInjectorValues(msgspec.Struct):
    sidecarInjectorWebhook: _RawWebhook | None = None


def _mapping(text: str) -> dict[Any, Any] | str:
    """The YAML mapping in *text*, or why there is none."""
    try:
        # libyaml's loader recurses without a limit and takes the process down on deep nesting; its parser does not.
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    return f"nested deeper than {MAX_DEPTH} levels"
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # YAML's own message goes over several lines and quotes the text; the place is what helps.
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error) or type(error).__name__
        return f"{what} in line {mark.line + 1}" if mark is not None else str(what)
    if data is None:
        return {}
    return data if isinstance(data, dict) else f"a YAML {type(data).__name__}, where a mapping was expected"


def _meets(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    # Source: Kubernetes, labels and selectors; NotIn and DoesNotExist hold where the label is absent.
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in (requirement.values or ())
        case "NotIn":
            return value not in (requirement.values or ())
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False

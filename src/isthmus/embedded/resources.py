"""The kinds a server serves: the built-in table and those that a CustomResourceDefinition adds.

Source of the table: https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.32/
"""

from __future__ import annotations

from typing import Any

import msgspec

from isthmus.embedded.shapes import Shape, built_in_shape, shape_of_schema
from isthmus.model.ref import Kind


class Column(msgspec.Struct, frozen=True):
    """A printer column of a custom resource."""

    name: str
    type: str
    path: str
    description: str = ""
    format: str = ""
    priority: int = 0


class Resource(msgspec.Struct, frozen=True):
    """One served kind. *versions* in order of preference; every version shows the same stored object."""

    group: str
    kind: str
    plural: str
    singular: str
    list_kind: str
    namespaced: bool
    versions: tuple[str, ...]
    storage_version: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: frozenset[str] = frozenset()
    """Versions with a status subresource."""
    has_scale: bool = False
    counts_generations: bool = False
    """Whether metadata.generation is kept."""
    custom: bool = False
    schemas: dict[str, dict[str, Any]] = {}
    """Structural schema of each version of a custom resource."""
    columns: dict[str, tuple[Column, ...]] = {}
    shapes: dict[str, Shape] = {}
    selectable: tuple[str, ...] = ()
    """Field paths, besides the metadata, that a field selector may name."""

    @property
    def key(self) -> str:
        """Identity within a server: ``plural.group``, the plural alone in the core group."""
        return self.qualified

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version

    def shape(self, version: str) -> Shape:
        return self.shapes[version]

    def served_as(self, version: str) -> Kind:
        return Kind(self.group, version, self.kind, self.plural, self.namespaced)


def _built_in(
    group: str,
    version: str,
    kind: str,
    plural: str,
    *,
    short: str = "",
    categories: str = "",
    cluster: bool = False,
    status: bool = False,
    scale: bool = False,
    generation: bool = False,
    selectable: str = "",
) -> Resource:
    return Resource(
        group=group,
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        list_kind=f"{kind}List",
        namespaced=not cluster,
        versions=(version,),
        storage_version=version,
        short_names=tuple(short.split()),
        categories=tuple(categories.split()),
        has_status=frozenset({version} if status else ()),
        has_scale=scale,
        counts_generations=generation,
        shapes={version: built_in_shape(kind)},
        selectable=tuple(selectable.split()),
    )


_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_INVOLVED = "kind namespace name uid apiVersion resourceVersion fieldPath"

CUSTOM_RESOURCE_DEFINITIONS = _built_in(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    short="crd crds",
    categories="api-extensions",
    cluster=True,
    status=True,
    generation=True,
)
NAMESPACES = _built_in(
    "", "v1", "Namespace", "namespaces", short="ns", cluster=True, status=True, selectable="status.phase"
)

BUILT_IN = (
    NAMESPACES,
    _built_in("", "v1", "Node", "nodes", short="no", cluster=True, status=True, selectable="spec.unschedulable"),
    _built_in(
        "",
        "v1",
        "Pod",
        "pods",
        short="po",
        categories="all",
        status=True,
        selectable="spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork "
        "status.phase status.podIP status.nominatedNodeName",
    ),
    _built_in(
        "",
        "v1",
        "Service",
        "services",
        short="svc",
        categories="all",
        status=True,
        selectable="spec.clusterIP spec.type",
    ),
    _built_in("", "v1", "Endpoints", "endpoints", short="ep"),
    _built_in("", "v1", "ConfigMap", "configmaps", short="cm"),
    _built_in("", "v1", "Secret", "secrets", selectable="type"),
    _built_in("", "v1", "ServiceAccount", "serviceaccounts", short="sa"),
    _built_in(
        "",
        "v1",
        "Event",
        "events",
        short="ev",
        selectable=" ".join(f"involvedObject.{name}" for name in _INVOLVED.split())
        + " reason reportingComponent source type",
    ),
    _built_in(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        short="deploy",
        categories="all",
        status=True,
        scale=True,
        generation=True,
    ),
    _built_in(
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        short="rs",
        categories="all",
        status=True,
        scale=True,
        generation=True,
        selectable="status.replicas",
    ),
    _built_in(
        "apps",
        "v1",
        "StatefulSet",
        "statefulsets",
        short="sts",
        categories="all",
        status=True,
        scale=True,
        generation=True,
    ),
    _built_in("apps", "v1", "DaemonSet", "daemonsets", short="ds", categories="all", status=True, generation=True),
    _built_in(
        "batch",
        "v1",
        "Job",
        "jobs",
        categories="all",
        status=True,
        generation=True,
        selectable="status.successful",
    ),
    _built_in("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", generation=True),
    _built_in("coordination.k8s.io", "v1", "Lease", "leases"),
    _built_in(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        short="hpa",
        categories="all",
        status=True,
    ),
    _built_in("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short="pdb", status=True, generation=True),
    _built_in("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", short="netpol", generation=True),
    _built_in(_RBAC, "v1", "ClusterRole", "clusterroles", cluster=True),
    _built_in(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", cluster=True),
    _built_in(_RBAC, "v1", "Role", "roles"),
    _built_in(_RBAC, "v1", "RoleBinding", "rolebindings"),
    _built_in(
        _ADMISSION,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        categories="api-extensions",
        cluster=True,
        generation=True,
    ),
    _built_in(
        _ADMISSION,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        categories="api-extensions",
        cluster=True,
        generation=True,
    ),
    CUSTOM_RESOURCE_DEFINITIONS,
)


_METADATA_COLUMN = Column("Age", "date", ".metadata.creationTimestamp", "Creation time of the object", format="")


def custom_resource(definition: dict[str, Any]) -> Resource:
    """The resource that a CustomResourceDefinition, already defaulted and validated, asks for."""
    spec = definition["spec"]
    names = spec["names"]
    served = [version for version in spec["versions"] if version.get("served")]
    schemas = {version["name"]: version.get("schema", {}).get("openAPIV3Schema", {}) for version in served}
    return Resource(
        group=spec["group"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or f"{names['kind']}List",
        namespaced=spec["scope"] == "Namespaced",
        versions=tuple(sorted((version["name"] for version in served), key=version_priority)),
        storage_version=next(version["name"] for version in spec["versions"] if version.get("storage")),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        has_status=frozenset(v["name"] for v in served if "status" in (v.get("subresources") or {})),
        counts_generations=True,
        custom=True,
        schemas=schemas,
        columns={version["name"]: _columns(version) for version in served},
        shapes={name: shape_of_schema(schema) for name, schema in schemas.items()},
        selectable=tuple(
            dict.fromkeys(
                field["jsonPath"].lstrip(".") for version in served for field in version.get("selectableFields") or ()
            )
        ),
    )


def _columns(version: dict[str, Any]) -> tuple[Column, ...]:
    declared = version.get("additionalPrinterColumns")
    if not declared:
        return (_METADATA_COLUMN,)
    return tuple(
        Column(
            name=column["name"],
            type=column["type"],
            path=column["jsonPath"],
            description=column.get("description", ""),
            format=column.get("format", ""),
            priority=column.get("priority", 0),
        )
        for column in declared
    )


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Sort key of API versions: v2, v1, v1beta2, v1beta1, v1alpha1, then other words in name order.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
    """
    stage_rank = {"": 0, "beta": 1, "alpha": 2}
    head, rest = version[:1], version[1:]
    digits = len(rest) - len(rest.lstrip("0123456789"))
    major, tail = rest[:digits], rest[digits:]
    stage = tail.rstrip("0123456789")
    minor = tail[len(stage) :]
    if head != "v" or not major or stage not in stage_rank or (stage and not minor):
        return (3, 0, 0, version)
    return (stage_rank[stage], -int(major), -int(minor or 0), "")

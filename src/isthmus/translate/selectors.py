"""What a selector selects, services or workloads, and how to find those that may select one without trying them all.

Source: reference, selectors: a list is an OR and an empty list selects everything, fields of a matcher are ANDed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from isthmus.api.common import DestinationSelector, KubeServiceMatcher, KubeWorkloadMatcher
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.facts import ServiceFacts

Term = tuple[str, ...]
"""A property that things have and selectors ask for. What a rule selects shares at least one term with it."""

EVERYTHING: Term = ("any",)

Matcher = KubeServiceMatcher | KubeWorkloadMatcher

Rule = KubeServiceMatcher | Ref
"""One alternative of a list of selectors: a matcher, or one service by identity."""


def rules_of(selectors: tuple[DestinationSelector, ...]) -> Iterator[Rule]:
    """The alternatives of *selectors*, in their order; an empty list is one matcher that matches anything.

    References that lack a field select nothing and are problems of the object that holds them.
    """
    if not selectors:
        yield KubeServiceMatcher()
    for selector in selectors:
        if selector.kube_service_matcher is not None:
            yield selector.kube_service_matcher
        if selector.kube_service_refs is not None:
            yield from (service.ref for service in selector.kube_service_refs.services)


def wrong_services(
    selectors: tuple[DestinationSelector, ...], path: str, *, is_missing: Callable[[Ref], bool] | None = None
) -> Iterator[Problem]:
    """The references in *selectors*, at field path *path*, that lack a field, or are of a service that *is_missing*."""
    for i, selector in enumerate(selectors):
        for j, service in enumerate(selector.kube_service_refs.services if selector.kube_service_refs else ()):
            at = f"{path}[{i}].kubeServiceRefs.services[{j}]"
            if not (service.name and service.namespace and service.cluster_name):
                message = "malformed kubeServiceRef: needs name, namespace and clusterName"
                yield Problem(at, "MalformedReference", f"Invalid Destination selector: {message}")
            elif is_missing is not None and is_missing(service.ref):
                message = f"Destination {service.ref.key} not found"
                yield Problem(at, "NotFound", f"Invalid Destination selector: {message}")


def selects(rule: Rule, service: ServiceFacts) -> bool:
    """Whether *rule* selects *service*."""
    if isinstance(rule, Ref):
        return rule == service.service
    return matches(rule, service.service, service.labels)


def matches(matcher: Matcher, where: Ref, labels: Mapping[str, str]) -> bool:
    """Whether *matcher* matches what is at *where* and has *labels*."""
    return (
        (not matcher.clusters or where.cluster in matcher.clusters)
        and (not matcher.namespaces or where.namespace in matcher.namespaces)
        and all(labels.get(name) == value for name, value in matcher.labels.items())
    )


def terms_of_rule(rule: Matcher | Ref) -> tuple[Term, ...]:
    """Terms of which whatever *rule* selects has at least one; as few and as selective as the rule allows."""
    if isinstance(rule, Ref):
        return (("service", rule.cluster, rule.namespace, rule.name),)
    if rule.labels:
        name, value = min(rule.labels.items())
        return (("label", name, value),)
    if rule.namespaces:
        return tuple(("namespace", namespace) for namespace in dict.fromkeys(rule.namespaces))
    if rule.clusters:
        return tuple(("cluster", cluster) for cluster in dict.fromkeys(rule.clusters))
    return (EVERYTHING,)


def terms_of_service(service: ServiceFacts) -> Iterable[Term]:
    """All terms that *service* has."""
    where = service.service
    yield ("service", where.cluster, where.namespace, where.name)
    yield from terms_of(where, service.labels)


def terms_of(where: Ref, labels: Mapping[str, str]) -> Iterable[Term]:
    """All terms that matchers may ask for of what is at *where* and has *labels*."""
    yield EVERYTHING
    yield ("namespace", where.namespace)
    yield ("cluster", where.cluster)
    for name, value in labels.items():
        yield ("label", name, value)

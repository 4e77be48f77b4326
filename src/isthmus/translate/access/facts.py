"""What translation reads of an AccessPolicy, and what is wrong with it by itself.

Source: reference, AccessPolicy; limits are those of Istio's AuthorizationPolicy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec
from isthmus.api.common import IdentitySelector
from isthmus.istio import objects as istio
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.ports import range_problems
from isthmus.translate.selectors import wrong_services
from isthmus.translate.seniority import Seniority, seniority

METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2


class Account(msgspec.Struct, frozen=True, gc=False):
    """A service account; an empty field stands for any."""

    cluster: str
    namespace: str
    name: str


class Callers(msgspec.Struct, frozen=True, gc=False):
    """Who may call: any of *accounts*, from one of *namespaces*, with a token of one of *tokens*. Empty means any."""

    accounts: tuple[Account, ...]
    namespaces: tuple[str, ...]
    tokens: tuple[str, ...]
    not_tokens: tuple[str, ...]

    @property
    def anybody(self) -> bool:
        """Whether all calls are meant."""
        return not (self.accounts or self.namespaces or self.tokens or self.not_tokens)


ANYBODY = Callers((), (), (), ())


class AccessFacts(msgspec.Struct, frozen=True, gc=False):
    """An AccessPolicy. One with a fault of its own allows nobody, and does so on every destination that it selects."""

    ref: Ref
    seniority: Seniority
    callers: tuple[Callers, ...]
    operation: istio.Operation


def access_facts(policy: AccessPolicy) -> AccessFacts:
    """Facts of *policy*."""
    spec = policy.spec
    callers = dict.fromkeys(_callers(selector) for selector in spec.source_selector) or {ANYBODY: None}
    return AccessFacts(
        ref=policy.ref,
        seniority=seniority(policy),
        callers=() if problems_of(spec) else tuple(callers),
        operation=istio.Operation(
            paths=tuple(sorted(set(spec.allowed_paths))),
            methods=tuple(sorted(set(spec.allowed_methods))),
            ports=tuple(str(port) for port in sorted(set(spec.allowed_ports))),
        ),
    )


def open_sources(spec: AccessPolicySpec) -> tuple[str, ...]:
    """Field paths of source selectors that select everybody."""
    if not spec.source_selector:
        return ("spec.sourceSelector",)
    return tuple(
        f"spec.sourceSelector[{i}]" for i, selector in enumerate(spec.source_selector) if _callers(selector).anybody
    )


def problems_of(spec: AccessPolicySpec) -> tuple[Problem, ...]:
    """What is wrong with *spec* whatever destinations there are."""
    return tuple(_problems(spec))


def _callers(selector: IdentitySelector) -> Callers:
    accounts: list[Account] = []
    namespaces: tuple[str, ...] = ()
    matcher = selector.kube_identity_matcher
    if matcher is not None:
        if matcher.clusters:
            accounts += [
                Account(cluster, namespace, "")
                for cluster in matcher.clusters
                for namespace in matcher.namespaces or ("",)
            ]
        else:
            namespaces = tuple(sorted(set(matcher.namespaces)))
    if selector.kube_service_account_refs is not None:
        accounts += [
            Account(account.cluster_name, account.namespace, account.name)
            for account in selector.kube_service_account_refs.service_accounts
        ]
    request = selector.request_identity_matcher
    return Callers(
        accounts=tuple(dict.fromkeys(accounts)),
        namespaces=namespaces,
        tokens=tuple(sorted(set(request.request_principals))) if request is not None else (),
        not_tokens=tuple(sorted(set(request.not_request_principals))) if request is not None else (),
    )


def _problems(spec: AccessPolicySpec) -> Iterator[Problem]:
    yield from wrong_services(spec.destination_selector, "spec.destinationSelector")
    for i, selector in enumerate(spec.source_selector):
        yield from _identity_problems(selector, f"spec.sourceSelector[{i}]")
        accounts = selector.kube_service_account_refs.service_accounts if selector.kube_service_account_refs else ()
        path = f"spec.sourceSelector[{i}].kubeServiceAccountRefs"
        if selector.kube_service_account_refs is not None and not accounts:
            yield Problem(f"{path}.serviceAccounts", "MissingField", "is empty: name at least one, or leave it out")
        for j, account in enumerate(accounts):
            if account.name and not account.namespace:
                message = (
                    f"service account {account.name} is without a namespace: Istio cannot compare names across "
                    "namespaces; name the namespace too"
                )
                yield Problem(f"{path}.serviceAccounts[{j}].namespace", "MissingField", message)
    for i, path in enumerate(spec.allowed_paths):
        at = f"spec.allowedPaths[{i}]"
        if _is_inner_wildcard(path):
            message = f"{path!r}: Istio takes a * at one end only, as in /a/* or */a"
            yield Problem(at, "InvalidPath", message)
        elif not path.startswith(("/", "*")):
            yield Problem(at, "InvalidPath", f"{path!r} never matches: paths begin with /")
        elif "?" in path or "#" in path:
            yield Problem(at, "InvalidPath", f"{path!r} never matches: a path ends before ? and #")
    for i, method in enumerate(spec.allowed_methods):
        at = f"spec.allowedMethods[{i}]"
        if not METHOD.fullmatch(method):
            yield Problem(at, "InvalidMethod", f"{method!r} is no HTTP method such as GET")
        elif _is_inner_wildcard(method):
            message = f"{method!r} never matches: Istio takes a * at one end only, as in G* or *T"
            yield Problem(at, "InvalidMethod", message)
        elif method != method.upper():
            yield Problem(
                at, "InvalidMethod", f"{method!r} never matches: HTTP methods are upper case, {method.upper()}"
            )
    for i, port in enumerate(spec.allowed_ports):
        yield from range_problems(port, f"spec.allowedPorts[{i}]")


def _identity_problems(selector: IdentitySelector, at: str) -> Iterator[Problem]:
    """Items of lists that would stand for everything, or for nothing."""
    matcher, request = selector.kube_identity_matcher, selector.request_identity_matcher
    lists = {
        "kubeIdentityMatcher.namespaces": matcher.namespaces if matcher is not None else (),
        "kubeIdentityMatcher.clusters": matcher.clusters if matcher is not None else (),
        "requestIdentityMatcher.requestPrincipals": request.request_principals if request is not None else (),
        "requestIdentityMatcher.notRequestPrincipals": request.not_request_principals if request is not None else (),
    }
    for name, items in lists.items():
        for i, item in enumerate(items):
            if not item:
                yield Problem(f"{at}.{name}[{i}]", "MissingField", "is empty: write it out, or leave it out")
    if matcher is None or not matcher.clusters:
        return
    for i, namespace in enumerate(matcher.namespaces):
        if "*" in namespace:
            message = f"{namespace!r} never matches: beside clusters, a namespace is a name; leave it out for all"
            yield Problem(f"{at}.kubeIdentityMatcher.namespaces[{i}]", "InvalidName", message)


def _is_inner_wildcard(pattern: str) -> bool:
    """Whether *pattern* has a ``*`` where Istio takes it as it is: in the middle, or at both ends."""
    return "*" in pattern[1:-1] or (pattern.startswith("*") and pattern.endswith("*") and len(pattern) > 1)

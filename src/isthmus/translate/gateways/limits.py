"""Rate limits that several routes refer to: RateLimitClientConfigs. Source: reference, RateLimitClientConfig."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.api.common import ApprovalState
from isthmus.api.rate_limit import RateLimitClientConfig, RateLimitClientConfigStatus
from isthmus.flow import Collection, Fetch, Graph
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.traffic.asking import rate_limits
from isthmus.translate.traffic.fields import raw_limit_problems
from isthmus.translate.traffic.filters import RouteFilter
from isthmus.translate.traffic.routes import Unreachable

PATH = "spec.rateLimits.raw"


class RateLimits:
    """The rate limits of every RateLimitClientConfig that is there."""

    def __init__(self, graph: Graph, configs: Collection[Ref, RateLimitClientConfig]) -> None:
        self._configs = configs
        self._limits: Collection[Ref, RouteFilter | Unreachable] = graph.map(
            "rate limits", configs, lambda _, config: _limits(config)
        )

    def of(self, fetch: Fetch, config: Ref) -> RouteFilter | Unreachable:
        """The rate limits of *config*, as Envoy has them, or why it has none."""
        found = fetch.get(self._limits, config)
        return found if found is not None else missing(config)

    def status(self, config: Ref) -> RateLimitClientConfigStatus | None:
        """The status of *config*, None if it is not there."""
        found = self._configs.get(config)
        if found is None:
            return None
        errors = tuple(str(problem) for problem in _problems(found))
        return RateLimitClientConfigStatus(
            observed_generation=found.metadata.generation,
            state=ApprovalState.INVALID if errors else ApprovalState.ACCEPTED,
            errors=errors,
        )


def missing(config: Ref) -> Unreachable:
    """That *config* is not there."""
    return Unreachable(f"{_called(config)} not found", later=True)


def _limits(config: RateLimitClientConfig) -> RouteFilter | Unreachable:
    if any(_problems(config)):
        return Unreachable(f"{_called(config.ref)} is INVALID")
    limits = config.spec.rate_limits
    return rate_limits(limits.raw.rate_limits if limits is not None and limits.raw is not None else ())


def _problems(config: RateLimitClientConfig) -> Iterator[Problem]:
    limits = config.spec.rate_limits
    if limits is None or limits.raw is None or not limits.raw.rate_limits:
        yield Problem(PATH, "MissingField", "is empty: say what the rate limit server is told of requests")
    else:
        yield from raw_limit_problems(limits.raw, PATH)


def _called(config: Ref) -> str:
    return f"RateLimitClientConfig {config.name}.{config.namespace}"

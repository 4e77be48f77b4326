"""When a container is probed, and what its answers amount to. No I/O, time passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.kube.events import Manifest

EAGER_SECONDS = 0.2  # between probes that wait for the first success, at first
EAGER_GROWTH = 1.25
EAGER_LONGEST_SECONDS = 1.0
EAGER_EXEC_SECONDS = 0.5  # a probe that starts a process costs more than a request


@dataclass(frozen=True)
class Probe:
    """One probe of a container, with Kubernetes' defaults for what it does not say."""

    kind: str
    """``startup``, ``readiness`` or ``liveness``."""
    action: Mapping[str, Any]
    delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    successes: int = 1
    failures: int = 3
    grace: float | None = None
    """Seconds that the container is left to end by itself; None: as the pod says."""


def probe_of(container: Manifest, kind: str) -> Probe | None:
    """The container's probe of *kind*, if it has one."""
    given = container.get(f"{kind}Probe")
    if not given:
        return None
    return Probe(
        kind,
        given,
        delay=float(given.get("initialDelaySeconds") or 0),
        period=float(given.get("periodSeconds") or 10),
        timeout=float(given.get("timeoutSeconds") or 1),
        successes=int(given.get("successThreshold") or 1),
        failures=int(given.get("failureThreshold") or 3),
        grace=given.get("terminationGracePeriodSeconds"),
    )


class Tally:
    """Counts the answers to one probe.

    Until the first success it is asked more often than every period, so that a pod is ready as soon as it can be;
    failures then count once a period, so that none has less time to start than it is given.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.verdict: bool | None = True if probe.kind == "liveness" else None
        """Whether the probe succeeds; None: neither, so far."""
        self._run = 0
        self._last = False
        self._failed_at: float | None = None
        self._eager = probe.kind != "liveness"
        self._pause = EAGER_EXEC_SECONDS if "exec" in probe.action else EAGER_SECONDS

    def count(self, succeeded: bool, now: float) -> bool:
        """Take in an answer; whether the verdict is another one now."""
        if succeeded:
            self._eager = False
        elif self._eager:
            if self._failed_at is not None and now - self._failed_at < self.probe.period:
                return False
            self._failed_at = now
        self._run = self._run + 1 if succeeded == self._last else 1
        self._last = succeeded
        needed = self.probe.successes if succeeded else self.probe.failures
        if self._run < needed or self.verdict is succeeded:
            return False
        self.verdict = succeeded
        return True

    def pause(self) -> float:
        """Seconds until the next probe."""
        if not self._eager:
            return self.probe.period
        pause = min(self._pause, self.probe.period)
        self._pause = min(self._pause * EAGER_GROWTH, max(EAGER_LONGEST_SECONDS, self._pause))
        return pause


def port_number(port: str | int, container: Manifest) -> int:
    """The number of a probe's *port*, which may be the name of one of the container's. Raises ValueError."""
    if isinstance(port, int) or port.isdecimal():
        return int(port)
    for each in container.get("ports") or ():
        if each.get("name") == port:
            return int(each["containerPort"])
    raise ValueError(f"the container has no port {port!r}")

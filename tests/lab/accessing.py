"""Who calls whom on the lab's bookinfo, whom the callees' proxies refuse, and what the rules on paper say of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from isthmus.cli.access_fleet import Scope, fleets, found_on
from isthmus.model.ref import Ref
from isthmus.translate.access.evaluation import Answer, Call, Policies, Workload
from isthmus.translate.access.evaluation import Request as OnPaper
from isthmus.translate.access.reachability import Reach, Reachability
from tests.lab.conftest import OPEN
from tests.lab.proxies import drained
from tests.lab.running import Json, Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS, OURS

ACCOUNTS = {
    "client": "client",
    "details-v1": "bookinfo-details",
    "productpage-v1": "bookinfo-productpage",
    "ratings-v1": "bookinfo-ratings",
    "reviews-v1": "bookinfo-reviews",
}
"""Service accounts, by Deployment."""
SERVICES = ("details", "productpage", "ratings", "reviews")
PORT = 9080
PATHS = {"details": "/details/0", "productpage": "/productpage", "ratings": "/ratings/0", "reviews": "/reviews/0"}
DENIED = "RBAC: access denied"
ROOT = "istio-system"
AT_ONCE = 5  # callers that call at the same time
CALLS = """\
import json, sys
from isthmus.lab.calls import ask
for request in json.load(sys.stdin):
    reply = ask(request["url"], method=request["method"])
    answer = {"status": reply.status, "headers": dict(reply.headers), "body": reply.body, "error": reply.error}
    print(json.dumps(answer | reply.served))
"""
"""What a pod runs to send many requests for one `kubectl exec`."""


@dataclass(frozen=True, order=True)
class Caller:
    """A workload of bookinfo, or the client."""

    cluster: str
    workload: str

    @property
    def principal(self) -> str:
        """Its identity, as AuthorizationPolicies name it; the trust domain of each cluster is its name."""
        return f"{self.cluster}/ns/default/sa/{ACCOUNTS[self.workload]}"


@dataclass(frozen=True, order=True)
class Request:
    """A request of a service of bookinfo on one cluster."""

    service: str
    cluster: str
    method: str = "GET"
    path: str = ""

    def as_of(self, caller: Caller) -> Json:
        """How *caller* sends it: by the service's own name on its own cluster, else by the federated one."""
        host = self.service if self.cluster == caller.cluster else f"{self.service}.default.svc.{self.cluster}.global"
        return {"method": self.method, "url": f"http://{host}:{PORT}{self.path or PATHS[self.service]}"}


CALLERS = tuple(Caller(cluster, workload) for cluster in CLUSTERS for workload in ACCOUNTS)
Answers = dict[tuple[Caller, Request], Json]


def ask(lab: Lab, requests: Sequence[Request], callers: Iterable[Caller] = CALLERS) -> Answers:
    """What each of *callers* gets for each of *requests*."""

    def send(caller: Caller) -> list[Json]:
        wanted = json.dumps([request.as_of(caller) for request in requests])
        command = ("exec", "-i", f"deploy/{caller.workload}", "--", sys.executable, "-c", CALLS)
        printed = lab.kubectl(caller.cluster, *command, stdin=wanted)
        return [json.loads(line) for line in printed.splitlines()]

    everybody = tuple(callers)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = tuple(pool.map(send, everybody))
    return {
        (caller, request): answer
        for caller, given in zip(everybody, answers, strict=True)
        for request, answer in zip(requests, given, strict=True)
    }


def is_refused(answer: Json) -> bool:
    """Whether a proxy behind the caller's own refused the call; the application was not asked."""
    upstream = "x-envoy-upstream-service-time" in answer["headers"]
    return upstream and answer["status"] == 403 and answer["body"] == DENIED and "pod" not in answer


def passed(answer: Json) -> bool:
    """Whether the application answered, whatever it thought of the request."""
    return "pod" in answer


def settled(
    lab: Lab, what: str, requests: Sequence[Request], may: Callable[[Caller, Request], bool], within: float = 180.0
) -> Answers:
    """The answers once exactly the requests that callers *may* make pass, and all others are refused.

    Envoy applies a new policy to new connections; one that was open serves a last request by the old policy.
    """
    wrong: list[str] = []

    def attempt() -> Answers | None:
        answers = ask(lab, requests)
        wrong[:] = [
            f"{caller} {request}: {answer['status']} {answer['error'] or ''}"
            for (caller, request), answer in answers.items()
            if not (passed(answer) if may(caller, request) else is_refused(answer))
        ]
        return None if wrong else answers

    try:
        found: Answers = eventually(what, attempt, within=within)
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(wrong[:20])) from None
    return found


def rules(lab: Lab) -> dict[str, Policies]:
    """The AuthorizationPolicies that are on each cluster."""
    return {cluster: Policies(lab.objects(cluster, "authorizationpolicies", "-A"), ROOT) for cluster in CLUSTERS}


def allows(found: Mapping[str, Policies], caller: Caller, request: Request) -> bool:
    """What the rules on paper say of *request*; fails where they leave that open."""
    pods = Workload("default", {"app": request.service})
    path = request.path or PATHS[request.service]
    call = Call(principal=caller.principal, port=PORT, method=request.method, path=path, host=request.service)
    decision = found[request.cluster].decide(pods, call)
    assert decision.answer is not Answer.DEPENDS, (caller, request, decision)
    return decision.answer is Answer.YES


def on_paper(lab: Lab) -> Reachability:
    """What `meshctl access can` answers from: made of the policies of users, not of what is written on clusters."""
    found = asyncio.run(found_on(lab.kubeconfig, "mgmt", "gloo-mesh", Scope(frozenset({"default"})), {}))
    assert not found.unseen
    return Reachability(fleets(found, None, "gloo-mesh")[0])


def can(reachability: Reachability, caller: Caller, request: Request) -> bool:
    """What `meshctl access can` says of *request*; fails where it does not know."""
    path = request.path or PATHS[request.service]
    asked = OnPaper(port=PORT, method=request.method, path=path, host=request.service)
    callee = Ref(request.cluster, "default", request.service)
    verdict = reachability.can(Ref(caller.cluster, "default", caller.workload), callee, asked)
    assert verdict.answer in (Reach.YES, Reach.NO), (caller, request, verdict)
    return verdict.answer is Reach.YES


def refusals(lab: Lab, cluster: str, service: str) -> int:
    """How many requests the proxies of *service* have refused."""
    count = 0
    for pod in lab.pods(cluster, f"app={service}"):
        command = ("exec", pod, "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "stats?filter=rbac.denied")
        lines = (line.partition(": ") for line in lab.kubectl(cluster, *command).splitlines())
        count += sum(int(value) for name, _, value in lines if name.startswith("http.inbound_"))
    return count


def named(policy: Json) -> str:
    """The name of a policy."""
    return str(policy["metadata"]["name"])


def access_policy(name: str, **spec: object) -> Json:
    """An AccessPolicy."""
    return {**OPEN, "metadata": {"name": name, "namespace": "gloo-mesh"}, "spec": spec}


def account(caller: Caller) -> Json:
    """The source selector that selects *caller* alone."""
    found = {"name": ACCOUNTS[caller.workload], "namespace": "default", "clusterName": caller.cluster}
    return {"kubeServiceAccountRefs": {"serviceAccounts": [found]}}


def destination(service: str, cluster: str) -> Json:
    """The destination selector that selects one service."""
    return {"kubeServiceRefs": {"services": [{"name": service, "namespace": "default", "clusterName": cluster}]}}


def apply(lab: Lab, *policies: Json) -> None:
    """`kubectl apply` all at once."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(policies)}
    lab.kubectl("mgmt", "apply", "-f", "-", stdin=json.dumps(listed))


@contextlib.contextmanager
def nobody_allowed(lab: Lab) -> Iterator[Lab]:
    """No AccessPolicy is there, so that nobody may call. Ends with what lets everybody call, and nothing else."""
    try:
        lab.kubectl("mgmt", "delete", "accesspolicies", "--all", "-n", "gloo-mesh")
        for cluster in CLUSTERS:
            eventually(f"nothing is allowed on {cluster}", partial(_has_only, lab, cluster, ROOT))
        settled(lab, "nobody is answered", [*each_service()], lambda caller, request: False)
        all_drained(lab)
        yield lab
    finally:
        lab.kubectl("mgmt", "delete", "accesspolicies", "--all", "-n", "gloo-mesh")
        lab.apply("mgmt", OPEN)
        settled(lab, "everybody is answered", [*each_service()], lambda caller, request: True)
        all_drained(lab)


def all_drained(lab: Lab) -> None:
    """Wait until no connection of bookinfo is judged by earlier rules."""
    for cluster in CLUSTERS:
        drained(lab, cluster, [f"app={service}" for service in SERVICES])


def each_service() -> Iterator[Request]:
    """A request of every service on every cluster."""
    return (Request(service, cluster) for service in SERVICES for cluster in CLUSTERS)


def _has_only(lab: Lab, cluster: str, namespace: str) -> bool:
    found = lab.objects(cluster, "authorizationpolicies", "-A", "-l", OURS)
    return bool(found) and {item["metadata"]["namespace"] for item in found} == {namespace}

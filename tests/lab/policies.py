"""Policies that hold for a while, and the pods of bookinfo that they are about: told to fail, asked what they got."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.lab.running import Json, Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS, OURS, proxy_config

ANY_HTTP_PORT = "9080"
"""Bookinfo's only port, and Envoy's name for the routes of all services with that port."""
PARENTS = "parents.networking.mesh.gloo.solo.io"
UNROUTED = {"outlierDetection", "mtls"}
"""Fields of policies that are no part of a route."""


@dataclass(frozen=True)
class Pod:
    """A pod of bookinfo; see isthmus.lab.bookinfo.directing."""

    lab: Lab
    cluster: str
    name: str
    version: str
    address: str
    zone: str

    def fail(self, **fault: Any) -> None:
        """Answer the next *requests* with *status*, or *seconds* later."""
        assert self._tell("PUT", "/lab/fault", "--data", json.dumps(fault))["status"] == 200

    def heal(self) -> None:
        """Answer as usual."""
        self._tell("DELETE", "/lab/fault")

    def requests(self) -> list[Json]:
        """What it got since it was asked last."""
        found: list[Json] = self._tell("DELETE", "/lab/requests")["body"]["requests"]
        return found

    def _tell(self, method: str, path: str, *options: str) -> Json:
        command = (sys.executable, "-m", "isthmus.lab.client", "call", f"http://127.0.0.1:{ANY_HTTP_PORT}{path}")
        answer: Json = json.loads(
            self.lab.kubectl(self.cluster, "exec", self.name, "--", *command, "--method", method, *options)
        )
        return answer


def pods(lab: Lab, cluster: str, app: str) -> dict[str, Pod]:
    """The ready pods of *app* by version; fails if there are two of one."""
    zones = {
        node["metadata"]["name"]: node["metadata"]["labels"]["topology.kubernetes.io/zone"]
        for node in lab.objects(cluster, "nodes")
    }
    ready = lab.pods(cluster, f"app={app}")
    found = [
        Pod(
            lab=lab,
            cluster=cluster,
            name=item["metadata"]["name"],
            version=item["metadata"]["labels"]["version"],
            address=item["status"]["podIP"],
            zone=zones[item["spec"]["nodeName"]],
        )
        for item in lab.objects(cluster, "pods", "-n", "default", "-l", f"app={app}")
        if item["metadata"]["name"] in ready
    ]
    by_version = {pod.version: pod for pod in found}
    assert len(by_version) == len(found), found
    return by_version


def service(name: str, cluster: str, **more: Any) -> Json:
    """A reference to one of bookinfo's services; *more* are fields beside it, such as `subset`."""
    return {"name": name, "namespace": "default", "clusterName": cluster, **more}


def policy(name: str, says: Json, *services: Json, **spec: Any) -> Json:
    """The TrafficPolicy *name* for *services*, by default reviews of cluster1; *spec* are its other selectors."""
    chosen = list(services) or [service("reviews", "cluster1")]
    return {
        "apiVersion": "networking.mesh.gloo.solo.io/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": name, "namespace": "gloo-mesh"},
        "spec": {"destinationSelector": [{"kubeServiceRefs": {"services": chosen}}], "policy": says, **spec},
    }


def shift(*shares: tuple[str, str, int]) -> Json:
    """A traffic shift of reviews: cluster, version and weight of each share."""
    return {
        "trafficShift": {
            "destinations": [
                {"kubeService": service("reviews", cluster, subset={"version": version}), "weight": weight}
                for cluster, version, weight in shares
            ]
        }
    }


@contextlib.contextmanager
def applied(lab: Lab, *manifests: Json) -> Iterator[None]:
    """*manifests* are accepted, and the proxies of the clients do as they say. All is gone afterwards."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
    lab.kubectl("mgmt", "apply", "-f", "-", stdin=listed)
    try:
        settle(lab, *manifests)
        yield
    finally:
        lab.kubectl("mgmt", "delete", "-f", "-", stdin=listed)
        forget(lab)


def _is_written(lab: Lab, manifest: Json) -> bool:
    """Whether routes name the TrafficPolicy of *manifest*: on both clusters, or on cluster1 if only some may send."""
    spec, name = _object(lab, manifest)["spec"], manifest["metadata"]["name"]
    if manifest["kind"] != "TrafficPolicy" or spec["policy"].keys() <= UNROUTED:
        return True
    return all(
        any(names_parent(each, name) for each in _for_sidecars(lab, cluster))
        for cluster in (CLUSTERS[:1] if "sourceSelector" in spec else CLUSTERS)
    )


def names_parent(written: Json, name: str) -> bool:
    """Whether the object *written* says that the user's object *name* is one of those that ask for it."""
    return f'"name":"{name}"' in written["metadata"]["annotations"].get(PARENTS, "")


def _object(lab: Lab, manifest: Json) -> Json:
    """The object as it is now, of whose kind and name *manifest* is."""
    meta = manifest["metadata"]
    [found] = lab.objects("mgmt", manifest["kind"].lower(), "-n", meta["namespace"], meta["name"])
    return found


def is_accepted(lab: Lab, manifest: Json) -> bool:
    """Whether the management plane accepts the object as it is now, of whose kind and name *manifest* is."""
    found = _object(lab, manifest)
    status = found.get("status") or {}
    assert status.get("state") != "INVALID", status
    return bool(status.get("state") == "ACCEPTED" and status["observedGeneration"] == found["metadata"]["generation"])


def settle(lab: Lab, *manifests: Json) -> None:
    """Wait until *manifests* are accepted and written, and the proxies of both clients have each route of ours.

    Of a manifest, kind and name are enough.
    """
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        eventually(f"{name} is accepted", partial(is_accepted, lab, manifest))
        eventually(f"routes are written for {name}", partial(_is_written, lab, manifest))
    for cluster in CLUSTERS:
        eventually(f"the client of {cluster} has its routes", partial(_has_routes, lab, cluster))


def forget(lab: Lab) -> None:
    """Wait until there is no route of ours for sidecars, neither written nor in the proxies of the clients."""
    for cluster in CLUSTERS:
        eventually(f"the client of {cluster} forgets its routes", partial(_has_no_routes, lab, cluster))


def _has_no_routes(lab: Lab, cluster: str) -> bool:
    return not _for_sidecars(lab, cluster) and not any(map(written_as, routes(lab, cluster)))


def _for_sidecars(lab: Lab, cluster: str) -> list[Json]:
    """The VirtualServices of ours on *cluster* that are not for gateways."""
    written = lab.objects(cluster, "virtualservices", "-A", "-l", OURS)
    return [each for each in written if "gateways" not in each["spec"]]


def _has_routes(lab: Lab, cluster: str) -> bool:
    written = _for_sidecars(lab, cluster)
    here = Counter(map(written_as, routes(lab, cluster)))
    return all(here[each["metadata"]["name"]] == len(list(for_client(each))) for each in written)


def for_client(virtual_service: Json) -> Iterator[Json]:
    """The routes of *virtual_service* that istiod sends to the client: none for others, and none after a last one."""
    for route in virtual_service["spec"]["http"]:
        [match] = route.get("match", [{}])
        labels, namespace = match.get("sourceLabels", {}), match.get("sourceNamespace", "default")
        if not labels.items() <= {"app": "client", "version": "v1"}.items() or namespace != "default":
            continue
        yield route
        if not match.keys() - {"sourceLabels", "sourceNamespace"}:
            return


def routes(lab: Lab, cluster: str) -> list[Json]:
    """The routes of bookinfo's port that the client's proxy on *cluster* has."""
    configured = proxy_config(lab, cluster, "routes", "--name", ANY_HTTP_PORT)
    return [
        route
        for configuration in configured
        for host in configuration.get("virtualHosts", ())
        for route in host.get("routes", ())
    ]


def written_as(route: Json) -> str:
    """The name of the VirtualService that *route* of a proxy is made of; empty if it is of none."""
    origin: str = route.get("metadata", {}).get("filterMetadata", {}).get("istio", {}).get("config", "")
    return origin.rpartition("/")[2] if "/virtual-service/" in origin else ""

"""Requests from outside, through the real ingress gateway of cluster1, to whatever VirtualHosts say."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from isthmus.pki.certificates import make_leaf, make_root
from isthmus.pki.keys import new_key
from tests.lab.policies import is_accepted, service
from tests.lab.running import Json, Lab, eventually
from tests.lab.test_walkthrough import OURS

ENTERPRISE = "networking.enterprise.mesh.gloo.solo.io/v1beta1"
SHOP = "shop.example.com"
PORT = 80
PROXIED = "proxied.example.com"


def enterprise(kind: str, name: str, spec: Json, **metadata: object) -> Json:
    """An object of the gateways' kinds."""
    meta = {"name": name, "namespace": "gloo-mesh", **metadata}
    return {"apiVersion": ENTERPRISE, "kind": kind, "metadata": meta, "spec": spec}


def route(path: Json, **action: object) -> Json:
    """A route for requests whose path is *path*."""
    return {"matchers": [{"uri": path}], **action}


def to(*services: Json) -> Json:
    """The action that sends requests to *services*."""
    return {"destinations": [{"kubeService": each} for each in services]}


GATEWAY = enterprise(
    "VirtualGateway",
    "shop",
    {
        "ingressGatewaySelectors": [
            {
                "portName": "http2",
                "destinationSelectors": [
                    {"kubeServiceMatcher": {"clusters": ["cluster1"], "labels": {"istio": "ingressgateway"}}}
                ],
            }
        ],
        "connectionHandlers": [{"http": {"routeConfig": [{"virtualHostSelector": {"labels": {"app": "shop"}}}]}}],
    },
)
HOST = enterprise(
    "VirtualHost",
    "shop",
    {
        "domains": [SHOP],
        "routes": [
            route({"prefix": "/v3/"}, routeAction={
                **to(service("reviews", "cluster2", subset={"version": "v3"})), "pathRewrite": "/reviews/",
            }),
            route({"prefix": "/details"}, routeAction=to(service("details", "cluster2")), options={
                "headerManipulation": {"appendResponseHeaders": {"via": "1.1 cluster1"}},
            }),
            route({"prefix": "/shared"}, routeAction={
                "destinations": [
                    {"kubeService": service("ratings", "cluster1"), "weight": 1},
                    {"kubeService": service("ratings", "cluster2"), "weight": 1},
                ],
                "pathRewrite": "/ratings",
            }),
            route({"prefix": "/nowhere"}, routeAction=to(service("nobody", "cluster2"))),
            route({"prefix": "/old"}, redirectAction={
                "hostRedirect": "www.example.com", "pathRedirect": "/new", "responseCode": "TEMPORARY_REDIRECT",
            }),
            route({"exact": "/teapot"}, directResponseAction={"status": 418, "body": "short and stout"}),
            route({"prefix": "/api"}, delegateAction={"selector": {"labels": {"app": "shop"}}}, options={
                "headerManipulation": {"appendResponseHeaders": {"via": "1.1 api"}},
            }),
        ],
    },
    labels={"app": "shop"},
)  # fmt: skip
TABLE = enterprise(
    "RouteTable",
    "shop",
    {
        "routes": [
            route({"prefix": "/ratings"}, name="ratings", labels={"slow": "yes"},
                  routeAction={**to(service("ratings", "cluster2")), "pathRewrite": "/ratings"}),
            route({"prefix": "/"}, directResponseAction={"status": 404, "body": "no such api"}),
        ],
    },
    labels={"app": "shop"},
)  # fmt: skip
ABORT = {
    "apiVersion": "networking.mesh.gloo.solo.io/v1",
    "kind": "TrafficPolicy",
    "metadata": {"name": "shop-is-closed", "namespace": "gloo-mesh"},
    "spec": {
        "routeSelector": [
            {"routeTableRefs": [{"name": "shop", "namespace": "gloo-mesh"}], "routeLabelMatcher": {"slow": "yes"}}
        ],
        "policy": {"faultInjection": {"abort": {"httpStatus": 429}}},
    },
}


@contextlib.contextmanager
def written(lab: Lab, *manifests: Json) -> Iterator[None]:
    """*manifests* are on the management cluster."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
    lab.kubectl("mgmt", "apply", "-f", "-", stdin=listed)
    try:
        yield
    finally:
        lab.kubectl("mgmt", "delete", "-f", "-", stdin=listed)


@pytest.fixture(scope="module")
def shop(federated: Lab) -> Iterator[Lab]:
    """A gateway, a host and a table that it delegates to are in use at cluster1's ingress gateway."""
    with written(federated, GATEWAY, HOST, TABLE):
        eventually("the gateway serves the shop", lambda: ask(federated, "/teapot")["status"] == 418)
        eventually("the other cluster serves it too", lambda: ask(federated, "/v3/0")["status"] == 200)
        yield federated
    eventually("nothing is left", lambda: not federated.has("cluster1", "virtualservices", "-A", "-l", OURS))
    eventually("the shop is gone from the gateway", lambda: ask(federated, "/teapot")["status"] == 404)


def address_of(lab: Lab) -> str:
    """Where cluster1's ingress gateway is reached from outside."""
    [found] = lab.objects("cluster1", "service", "istio-ingressgateway", "-n", "istio-system")
    address: str = found["status"]["loadBalancer"]["ingress"][0]["ip"]
    return address


def ask(lab: Lab, path: str, *options: str, host: str = SHOP) -> Json:
    """The answer of cluster1's ingress gateway to a request for *path* of *host* from another cluster."""
    return lab.call("cluster2", f"http://{address_of(lab)}:{PORT}{path}", "--header", f"host:{host}", *options)[0]


def status_of(lab: Lab, kind: str, name: str) -> Json:
    [found] = lab.objects("mgmt", kind, "-n", "gloo-mesh", name)
    status: Json = found.get("status") or {}
    return status


def test_a_service_of_the_other_cluster_answers(shop: Lab) -> None:
    """Reviews v3, which runs on cluster2 alone, through the gateway of cluster1; its prefix is replaced."""
    answer = ask(shop, "/v3/0")

    assert (answer["status"], answer["cluster"], answer["version"]) == (200, "cluster2", "v3")
    assert answer["body"]["id"] == "0"


def test_a_federated_service_answers_and_the_header_arrives(shop: Lab) -> None:
    answer = ask(shop, "/details/0")

    assert (answer["status"], answer["cluster"], answer["service"]) == (200, "cluster2", "details")
    assert answer["headers"]["via"] == "1.1 cluster1"


def test_both_clusters_have_their_share(shop: Lab) -> None:
    """Of two hundred requests each has a hundred, give or take five standard errors."""
    url = f"http://{address_of(shop)}:{PORT}/shared/0"
    answers = shop.call("cluster2", url, "--header", f"host:{SHOP}", "-n", "200")

    remote = sum(answer["cluster"] == "cluster2" for answer in answers)
    Lab.measured.append(f"1:1 at the ingress gateway: {remote} of {len(answers)} by the other cluster")
    assert {answer["status"] for answer in answers} == {200}
    assert abs(remote - 100) <= 36


def test_clients_are_redirected(shop: Lab) -> None:
    answer = ask(shop, "/old/book")

    assert (answer["status"], answer["headers"]["location"]) == (307, "http://www.example.com/new")


def test_the_gateway_answers_itself(shop: Lab) -> None:
    answer = ask(shop, "/teapot")

    assert (answer["status"], answer["body"]) == (418, "short and stout")


def test_what_is_delegated_inherits(shop: Lab) -> None:
    """The table's matchers are behind the host's prefix, and its routes have the options of the delegating route."""
    rated, unknown = ask(shop, "/api/ratings/0"), ask(shop, "/api/else")

    assert (rated["status"], rated["cluster"], rated["service"]) == (200, "cluster2", "ratings")
    assert rated["headers"]["via"] == "1.1 api"
    assert (unknown["status"], unknown["body"]) == (404, "no such api")


def test_what_is_not_there_is_said_and_answered_with_503(shop: Lab) -> None:
    status = eventually("the host is judged", lambda: status_of(shop, "virtualhost", "shop"))

    assert [error for error in status["errors"] if "nobody.default.cluster2" in error] == status["errors"]
    assert ask(shop, "/nowhere")["status"] == 503


def test_a_policy_reaches_the_routes_that_it_selects(shop: Lab) -> None:
    """By the label of a route of the table; the others stay as they were."""
    with written(shop, ABORT):
        eventually("it is accepted", partial(is_accepted, shop, ABORT))
        eventually("the route is closed", lambda: ask(shop, "/api/ratings/0")["status"] == 429)
        details = ask(shop, "/details/0")
        status = status_of(shop, "trafficpolicy", "shop-is-closed")
    eventually("the route is open again", lambda: ask(shop, "/api/ratings/0")["status"] == 200)

    assert details["status"] == 200
    assert status["gatewayRoutes"] == {"shop.gloo-mesh (RouteTable)": {"routes": ["ratings"]}}


def test_the_users_own_gateway_stays_as_it_was(shop: Lab) -> None:
    """Bookinfo's Gateway serves any other host on the same port."""
    answer = ask(shop, "/productpage", host="bookinfo.example.com")

    assert (answer["status"], answer["cluster"], answer["service"]) == (200, "cluster1", "productpage")
    assert shop.has("cluster1", "gateways.networking.istio.io", "-n", "default", "bookinfo-gateway")


def test_statuses_tell_what_was_made(shop: Lab) -> None:
    status = status_of(shop, "virtualgateway", "shop")

    [made] = status["createdIstioGateways"]["cluster1"]["refs"]
    assert shop.has("cluster1", "gateways.networking.istio.io", "-n", made["namespace"], made["name"])
    assert status["state"] == "ACCEPTED"
    assert status["appliedIngressGateways"][0]["destinationRef"]["name"] == "istio-ingressgateway-istio-system-cluster1"
    assert status_of(shop, "routetable", "shop")["selectedBy"] == [
        {"name": "shop", "namespace": "gloo-mesh"},
        {"name": "shop", "namespace": "gloo-mesh", "type": "VirtualHost"},
    ]


# --- TLS and connections ----------------------------------------------------------------------------------------------

SECURE = "secure.example.com"
# Asks over TLS, trusting one root, and prints the status and the body.
ASK = """
import http.client, socket, ssl, sys
address, name, path, root = sys.argv[1:]
context = ssl.create_default_context(cadata=root)
connection = http.client.HTTPSConnection(name, 443, context=context, timeout=10)
connection._create_connection = lambda *_, **__: socket.create_connection((address, 443), timeout=10)
try:
    connection.request("GET", path)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())
except (OSError, http.client.HTTPException) as error:
    print(0, type(error).__name__)
"""


def listening(name: str, port: str, handler: Json) -> Json:
    """A VirtualGateway for *port* of cluster1's ingress gateway."""
    [selector] = GATEWAY["spec"]["ingressGatewaySelectors"]
    spec = {"ingressGatewaySelectors": [{**selector, "portName": port}], "connectionHandlers": [handler]}
    return enterprise("VirtualGateway", name, spec)


@pytest.fixture
def certified(federated: Lab) -> Iterator[tuple[Lab, str]]:
    """A Secret beside the gateway holds a certificate of `SECURE`; and the root that signed it, PEM."""
    now, life = datetime.now(UTC) - timedelta(minutes=5), timedelta(days=1)
    root = make_root(new_key(), common_name="shop", serial=1, now=now, life=life)
    key = new_key()
    leaf = make_leaf(root, key, common_name=SECURE, dns_names=[SECURE], serial=2, now=now, life=life)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "shop-tls", "namespace": "istio-system"},
        "data": {"tls.crt": base64.b64encode(leaf).decode(), "tls.key": base64.b64encode(key).decode()},
    }
    federated.apply("cluster1", secret)
    try:
        yield federated, root.certificate.decode()
    finally:
        federated.kubectl("cluster1", "delete", "secret", "shop-tls", "-n", "istio-system")


def test_tls_ends_at_the_gateway_and_plain_requests_are_sent_to_it(certified: tuple[Lab, str]) -> None:
    """The gateway shows the Secret's certificate, and answers with a service of the other cluster."""
    lab, root = certified
    hosts = {"routeConfig": [{"virtualHostSelector": {"labels": {"app": "secure"}}}]}
    host = enterprise(
        "VirtualHost",
        "secure",
        {
            "domains": [SECURE],
            "routes": [route({"prefix": "/details"}, routeAction=to(service("details", "cluster2")))],
        },
        labels={"app": "secure"},
    )
    tls = {"sslConfig": {"secretName": "shop-tls", "tlsMode": "SIMPLE"}}
    https = listening("secure", "https", {"http": hosts, "connectionOptions": tls})
    redirect = listening("to-secure", "http2", {"http": hosts, "connectionOptions": {"httpsRedirect": True}})
    python = ("meshctl", "lab", "exec", "cluster2", "--", sys.executable, "-c", ASK)

    with written(lab, host, https, redirect):
        said = eventually(
            "the gateway speaks TLS",
            lambda: (s := lab.run(*python, address_of(lab), SECURE, "/details/0", root)).startswith("200") and s,
        )
        sent = eventually(
            "plain requests are redirected",
            lambda: (a := ask(lab, "/details/0", host=SECURE))["status"] == 301 and a,
        )

    assert '"cluster": "cluster2"' in said
    assert sent["headers"]["location"] == f"https://{SECURE}/details/0"


def test_connections_are_passed_on(federated: Lab) -> None:
    """What comes in at a port goes to ratings of the other cluster, whatever it is, and is proxied as is said."""
    hosts = [{"name": "ratings", "destination": {"kube": service("ratings", "cluster2")}}]
    said = {"tcpProxySettings": {"maxConnectAttempts": 3, "idleTimeout": "90s"}}
    gateway = listening("passed", "tcp-webhook", {"tcp": {"tcpHosts": hosts, "options": said}})
    url = f"http://{address_of(federated)}:15017/ratings/0"

    with written(federated, gateway):
        answer = eventually(
            "a connection is passed on", lambda: (a := federated.call("cluster2", url)[0])["status"] == 200 and a
        )
        eventually("it is proxied as is said", lambda: proxied(federated, 15017) == [(3, "90s")])

    assert (answer["cluster"], answer["service"]) == ("cluster2", "ratings")


def proxied(lab: Lab, port: int) -> list[tuple[int, str]]:
    """Attempts and idle times of the TCP proxies at *port* of cluster1's ingress gateway."""
    gateway = ("deploy/istio-ingressgateway", "-n", "istio-system", "--port", str(port), "-o", "json")
    listeners = json.loads(lab.run("istioctl", "--context", "cluster1", "proxy-config", "listeners", *gateway))
    return [
        (each["typedConfig"].get("maxConnectAttempts"), each["typedConfig"].get("idleTimeout"))
        for listener in listeners
        for chain in listener.get("filterChains", ())
        for each in chain["filters"]
        if each["name"] == "envoy.filters.network.tcp_proxy"
    ]


HEADED = """
import http.client, json, sys
address, port, name, path, header = sys.argv[1:]
connection = http.client.HTTPConnection(address, int(port), timeout=10)
try:
    connection.connect()
    connection.sock.sendall(header.encode())
    connection.request("GET", path, headers={"host": name})
    answer = connection.getresponse()
    print(json.dumps([answer.status, answer.read().decode()]))
except (OSError, http.client.HTTPException) as error:
    print(json.dumps([0, type(error).__name__]))
"""
"""Sends what comes before a request, and the request."""
PROXY = "PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n"


def test_a_gateway_behind_a_load_balancer_is_told_who_calls(federated: Lab) -> None:
    """By the PROXY header of a connection; one without is refused."""
    answers = {
        "domains": [PROXIED],
        "routes": [route({"prefix": "/details"}, routeAction=to(service("details", "cluster1")))],
    }
    handler = {
        "http": {"routeConfig": [{"virtualHost": answers}]},
        "connectionOptions": {"enableProxyProtocol": True},
    }
    gateway = listening("proxied", "tcp-webhook", handler)
    gateway["spec"]["options"] = {"perConnectionBufferLimitBytes": 65536}
    python = ("meshctl", "lab", "exec", "cluster2", "--", sys.executable, "-c", HEADED)

    def told(header: str) -> tuple[int, str]:
        status, said = json.loads(federated.run(*python, address_of(federated), "15017", PROXIED, "/details/0", header))
        return status, said

    with written(federated, gateway):
        eventually("the gateway reads headers", lambda: told(PROXY)[0] == 200)
        _, said = told(PROXY)
        refused, _ = told("")

    served = json.loads(said)["served"]
    assert served["service"] == "details"
    assert served["request"]["x-forwarded-for"].split(",")[0] == "192.0.2.7"
    assert refused == 0

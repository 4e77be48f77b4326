"""Bookinfo's servers, started as the lab starts them and called as its proxies call them."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from isthmus.lab.calls import Reply, ask


class Server:
    """One running service."""

    def __init__(self, service: str, version: str, env: dict[str, str]) -> None:
        argv = [sys.executable, "-m", "isthmus.lab.bookinfo", service, version, "--host", "127.0.0.1", "--port", "0"]
        names = {"ISTHMUS_LAB_CLUSTER": "cluster2", "HOSTNAME": f"{service}-{version}-pod"}
        for callee in ("details", "reviews", "ratings"):
            names[f"{callee.upper()}_HOSTNAME"] = "127.0.0.1"
            names[f"{callee.upper()}_SERVICE_PORT"] = "1"  # nobody listens there
        self.process = subprocess.Popen(argv, env=names | env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.log = self.process.stdout
        self.port = int(self.log.readline().rsplit(" ", 1)[1])

    def get(self, path: str, **headers: str) -> Reply:
        return ask(f"http://127.0.0.1:{self.port}{path}", headers={k.replace("_", "-"): v for k, v in headers.items()})

    def tell(self, method: str, path: str, body: object = None) -> Reply:
        return ask(f"http://127.0.0.1:{self.port}{path}", method=method, data=json.dumps(body) if body else None)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.log.close()


@pytest.fixture(scope="module")
def bookinfo() -> Iterator[dict[str, Server]]:
    """Every service in every version, product page and versions 2 and 3 of reviews with their callees."""
    with ExitStack() as stack:
        servers: dict[str, Server] = {}

        def start(service: str, version: str, **env: str) -> None:
            server = Server(service, version, env)
            stack.callback(server.end)
            servers[f"{service}-{version}"] = server

        start("details", "v1")
        start("ratings", "v1")
        ratings = str(servers["ratings-v1"].port)
        for version in ("v1", "v2", "v3"):
            start("reviews", version, RATINGS_SERVICE_PORT=ratings)
        start(
            "productpage",
            "v1",
            DETAILS_SERVICE_PORT=str(servers["details-v1"].port),
            REVIEWS_SERVICE_PORT=str(servers["reviews-v3"].port),
            RATINGS_SERVICE_PORT=ratings,
        )
        yield servers


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers of one test."""
    with ExitStack() as stack:

        def one(service: str, version: str, **env: str) -> Server:
            server = Server(service, version, env)
            stack.callback(server.end)
            return server

        yield one


def test_details_describe_a_book(bookinfo: dict[str, Server]) -> None:
    reply = bookinfo["details-v1"].get("/details/0")

    served = reply.body.pop("served")
    assert reply.status == 200
    assert reply.body["ISBN-10"] == "1234567890"
    assert reply.body["id"] == 0
    assert (served["service"], served["cluster"], served["pod"], served["version"]) == (
        "details",
        "cluster2",
        "details-v1-pod",
        "v1",
    )


@pytest.mark.parametrize(
    ("server", "path", "status"),
    [
        ("details-v1", "/details/one", 400),
        ("ratings-v1", "/ratings/one", 400),
        ("reviews-v1", "/reviews/one", 404),
        ("reviews-v1", "/", 404),
        ("productpage-v1", "/api/v1/products/0/authors", 404),
        ("productpage-v1", "/api/v1/products/one", 400),  # what details answer
    ],
)
def test_bad_requests_are_refused_as_in_the_sample(
    bookinfo: dict[str, Server], server: str, path: str, status: int
) -> None:
    reply = bookinfo[server].get(path)

    assert reply.status == status
    assert reply.body["error"]
    assert reply.body["served"]["service"] == server.split("-")[0]


@pytest.mark.parametrize(
    ("version", "rating"),
    [("v1", None), ("v2", {"stars": 5, "color": "black"}), ("v3", {"stars": 5, "color": "red"})],
)
def test_versions_of_reviews_differ_in_their_stars(
    bookinfo: dict[str, Server], version: str, rating: dict[str, object] | None
) -> None:
    reply = bookinfo[f"reviews-{version}"].get("/reviews/0")

    assert reply.status == 200
    assert reply.body["podname"] == f"reviews-{version}-pod"
    assert reply.body["clustername"] == "cluster2"
    assert [review["reviewer"] for review in reply.body["reviews"]] == ["Reviewer1", "Reviewer2"]
    assert reply.body["reviews"][0].get("rating") == rating
    calls = reply.body["served"]["calls"]
    assert [call["served"]["pod"] for call in calls] == (["ratings-v1-pod"] if rating else [])


def test_reviews_without_ratings_say_so(start: Callable[..., Server]) -> None:
    """The service answers; only the stars are missing."""
    reviews = start("reviews", "v2")

    reply = reviews.get("/reviews/0")

    assert reply.status == 200
    assert [review["rating"] for review in reply.body["reviews"]] == [
        {"error": "Ratings service is currently unavailable"},
        {"error": "Ratings service is currently unavailable"},
    ]
    assert reply.body["served"]["calls"][0]["error"].startswith("ConnectionRefusedError")


def test_posted_ratings_are_what_that_pod_answers_then(start: Callable[..., Server]) -> None:
    ratings = start("ratings", "v1")
    url = f"http://127.0.0.1:{ratings.port}/ratings/7"

    refused = ask(url, method="POST", data="{")
    posted = ask(url, method="POST", data='{"Reviewer1": 1, "Reviewer2": 2}')

    assert refused.status == 400
    assert posted.body["ratings"] == {"Reviewer1": 1, "Reviewer2": 2}
    assert ratings.get("/ratings/7").body["ratings"] == {"Reviewer1": 1, "Reviewer2": 2}
    assert ratings.get("/ratings/0").body["ratings"] == {"Reviewer1": 5, "Reviewer2": 4}


def test_the_product_page_shows_details_and_reviews(bookinfo: dict[str, Server]) -> None:
    """A person sees stars and who served; a test finds the whole chain."""
    reply = bookinfo["productpage-v1"].get("/productpage")

    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "1234567890" in reply.body
    assert '<p style="color: red">★★★★★</p>' in reply.body
    assert "Reviews served by: reviews-v3-pod on cluster cluster2" in reply.body
    served = chain(reply.body)
    assert [call["served"]["service"] for call in served["calls"]] == ["details", "reviews"]
    assert served["calls"][1]["served"]["calls"][0]["served"]["pod"] == "ratings-v1-pod"


def test_the_product_page_stands_without_its_callees(start: Callable[..., Server]) -> None:
    productpage = start("productpage", "v1")

    page = productpage.get("/productpage")
    reviews = productpage.get("/api/v1/products/0/reviews")

    assert page.status == 200
    assert "Error fetching product details" in page.body
    assert "Error fetching product reviews" in page.body
    assert reviews.status == 500
    assert reviews.body["error"] == "Sorry, product reviews are currently unavailable for this book."
    assert len(reviews.body["served"]["calls"]) == 2  # reviews are asked twice, as in the sample


@pytest.mark.parametrize(
    ("path", "field", "callee"),
    [
        ("/api/v1/products/0", "author", "details"),
        ("/api/v1/products/0/reviews", "reviews", "reviews"),
        ("/api/v1/products/0/ratings", "ratings", "ratings"),
    ],
)
def test_the_api_passes_on_what_the_callee_says(
    bookinfo: dict[str, Server], path: str, field: str, callee: str
) -> None:
    reply = bookinfo["productpage-v1"].get(path)

    assert reply.status == 200
    assert field in reply.body
    assert reply.served["service"] == reply.body["served"]["service"] == "productpage"
    assert reply.body["served"]["calls"][0]["served"]["service"] == callee


def test_products_are_a_list(bookinfo: dict[str, Server]) -> None:
    reply = bookinfo["productpage-v1"].get("/api/v1/products")

    assert [product["id"] for product in reply.body] == [0]
    assert reply.served["pod"] == "productpage-v1-pod"


def test_health_depends_on_nobody(start: Callable[..., Server]) -> None:
    """A pod whose callees are gone stays in rotation."""
    servers = [start("productpage", "v1"), start("reviews", "v3"), start("details", "v1"), start("ratings", "v1")]

    answers = [server.get("/health") for server in servers]

    assert [answer.status for answer in answers] == [200] * 4
    assert answers[0].body == "Product page is healthy"
    assert [answer.body["status"] for answer in answers[1:]] == [
        "Reviews is healthy",
        "Details is healthy",
        "Ratings is healthy",
    ]


def test_tracing_headers_reach_the_last_callee(bookinfo: dict[str, Server]) -> None:
    """Without them a proxy could not join the spans; what proxies say about one caller is not passed on."""
    reply = bookinfo["reviews-v3"].get(
        "/reviews/0", x_request_id="r1", x_b3_traceid="t1", end_user="jason", x_forwarded_client_cert="URI=spiffe://a"
    )

    first = reply.body["served"]
    last = first["calls"][0]["served"]
    assert first["request"]["x-forwarded-client-cert"] == "URI=spiffe://a"
    assert "x-forwarded-client-cert" not in last["request"]
    assert (last["request"]["x-request-id"], last["request"]["x-b3-traceid"]) == ("r1", "t1")
    assert last["request"]["end-user"] == "jason"


def test_who_signs_in_is_known_to_every_callee(bookinfo: dict[str, Server]) -> None:
    url = f"http://127.0.0.1:{bookinfo['productpage-v1'].port}"

    login = ask(f"{url}/login", method="POST", data="username=jason&passwd=", headers={"referer": "/productpage"})
    cookie = login.headers["set-cookie"].partition(";")[0]
    page = ask(f"{url}/productpage", headers={"cookie": cookie})
    guest = ask(f"{url}/productpage", headers={"end-user": "jason"})

    assert (login.status, login.headers["location"]) == (302, "/productpage")
    assert [call["served"]["request"].get("end-user") for call in chain(page.body)["calls"]] == ["jason", "jason"]
    # Only who signed in is a user, whatever a header claims.
    assert "Sign out" not in guest.body


def test_a_connection_serves_many_requests(bookinfo: dict[str, Server]) -> None:
    """Proxies keep connections open; answers are never delayed by Nagle's algorithm and a delayed acknowledgement."""
    connection = http.client.HTTPConnection("127.0.0.1", bookinfo["details-v1"].port, timeout=5)
    times = []
    connection.connect()
    here = connection.sock.getsockname()

    for _ in range(20):
        started = time.perf_counter()
        connection.request("GET", "/details/0")
        answer = connection.getresponse()
        assert json.loads(answer.read())["pages"] == 200
        times.append(time.perf_counter() - started)

    assert connection.sock.getsockname() == here
    assert sorted(times)[10] < 0.03  # a delayed acknowledgement takes 40 ms
    connection.close()


def test_a_head_request_gets_no_body(bookinfo: dict[str, Server]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", bookinfo["details-v1"].port, timeout=5)

    connection.request("HEAD", "/details/0")
    head = connection.getresponse()
    assert head.read() == b""
    connection.request("GET", "/health")
    health = connection.getresponse()

    assert (head.status, health.status) == (200, 200)
    assert json.loads(health.read())["status"] == "Details is healthy"
    connection.close()


def test_a_server_that_is_told_to_stop_answers_who_has_not_heard_yet(start: Callable[..., Server]) -> None:
    """While a pod is taken out of rotation requests still come: they are answered, on connections that then close."""
    details = start("details", "v1")
    kept = http.client.HTTPConnection("127.0.0.1", details.port, timeout=5)
    kept.request("GET", "/details/0")
    assert kept.getresponse().read()

    details.process.terminate()
    closing = None
    deadline = time.monotonic() + 5
    while closing != "close" and time.monotonic() < deadline:
        kept.request("GET", "/details/0")
        answer = kept.getresponse()
        assert answer.read()
        closing = answer.getheader("Connection")
    late = details.get("/details/0")

    assert closing == "close"
    assert late.status == 200
    assert details.process.wait(5) == 0
    kept.close()


def test_a_request_in_flight_is_finished(start: Callable[..., Server]) -> None:
    """The product page told to stop while it waits for reviews still answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        productpage = start("productpage", "v1", DETAILS_SERVICE_PORT=str(silent.getsockname()[1]))
        replies: list[Reply] = []
        caller = threading.Thread(target=lambda: replies.append(productpage.get("/api/v1/products/0")))
        caller.start()
        connection, _ = silent.accept()

        productpage.process.terminate()
        body = b'{"author": "A"}'
        connection.recv(65536)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body)
        caller.join(10)
        connection.close()

    assert [(reply.status, reply.body["author"]) for reply in replies] == [(200, "A")]
    assert productpage.process.wait(5) == 0


def test_a_caller_that_leaves_harms_nobody(start: Callable[..., Server]) -> None:
    details = start("details", "v1")

    for _ in range(5):
        with socket.create_connection(("127.0.0.1", details.port)) as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closes with a reset
            caller.sendall(b"GET /details/0 HTTP/1.1\r\n")

    assert details.get("/details/0").status == 200


def test_a_server_listens_on_both_families() -> None:
    """Without --host a pod is reached by each of its addresses."""
    argv = [sys.executable, "-m", "isthmus.lab.bookinfo", "details", "v1", "--port", "0"]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline().rsplit(" ", 1)[1])

    hosts = ["127.0.0.1", "[::1]"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]
    statuses = [ask(f"http://{host}:{port}/health").status for host in hosts]
    server.terminate()

    assert server.wait(5) == 0
    server.stdout.close()
    assert set(statuses) == {200}


def test_an_unknown_version_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isthmus.lab.bookinfo", "reviews", "v4"], capture_output=True, text=True, timeout=20
    )

    assert done.returncode == 2
    assert "reviews has no version v4, only v1, v2, v3" in done.stderr


def chain(page: str) -> dict[str, list[dict[str, dict[str, object]]]]:
    """Who served the product page, with all callees."""
    found = re.search(r'<script type="application/json" id="served">(.*?)</script>', page)
    assert found is not None
    parsed: dict[str, list[dict[str, dict[str, object]]]] = json.loads(found[1])
    return parsed


def test_a_server_fails_as_it_is_told(start: Callable[..., Server]) -> None:
    """The next two requests, or all until it is told otherwise; what tells it is no such request."""
    server = start("details", "v1")

    assert server.tell("PUT", "/lab/fault", {"status": 503, "requests": 2}).status == 200
    few = [server.get("/details/0").status for _ in range(3)]
    server.tell("PUT", "/lab/fault", {"status": 500})
    all_of_them = [server.get("/details/0").status for _ in range(3)]
    server.tell("DELETE", "/lab/fault")

    assert (few, all_of_them, server.get("/details/0").status) == ([503, 503, 200], [500, 500, 500], 200)


def test_a_server_answers_late_when_told(start: Callable[..., Server]) -> None:
    server = start("details", "v1")
    server.tell("PUT", "/lab/fault", {"seconds": 0.2})

    reply = server.get("/details/0")

    assert reply.status == 200
    assert reply.milliseconds >= 200


def test_a_fault_that_nobody_knows_is_refused(start: Callable[..., Server]) -> None:
    reply = start("details", "v1").tell("PUT", "/lab/fault", {"colour": "red"})

    assert reply.status == 400
    assert "colour" in reply.body["error"]


def test_a_server_tells_the_requests_that_it_got(start: Callable[..., Server]) -> None:
    """With all headers, whoever they came from and whatever became of them; and forgets them when told."""
    server = start("details", "v1")
    server.get("/details/0?debug=1", X_Team="blue")
    server.get("/nothing")

    told = server.tell("DELETE", "/lab/requests").body["requests"]

    assert [(seen["method"], seen["path"], seen["query"], seen["status"]) for seen in told] == [
        ("GET", "/details/0", "debug=1", 200),
        ("GET", "/nothing", "", 404),
    ]
    assert told[0]["headers"]["x-team"] == "blue"
    assert server.tell("GET", "/lab/requests").body["requests"] == []

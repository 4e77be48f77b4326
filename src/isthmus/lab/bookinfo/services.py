"""What bookinfo's services answer. A service is a function of one exchange; whom it calls is part of the exchange.

Where the others are comes from the environment, by the names of the sample: `SERVICES_DOMAIN`, `REVIEWS_HOSTNAME`,
`REVIEWS_SERVICE_PORT` and so on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from isthmus.lab.bookinfo import page
from isthmus.lab.bookinfo.serving import PORT, Answer, Exchange, Service
from isthmus.lab.calls import Reply

VERSIONS = {"productpage": ("v1",), "details": ("v1",), "ratings": ("v1",), "reviews": ("v1", "v2", "v3")}

_PAGE_TIMEOUT = 3.0  # of the product page for each call
_PAGE_ASKS_REVIEWS = 2  # times; with the timeout above this is the fault that Istio's fault injection task finds
_STARS = {"v2": ("black", 10.0), "v3": ("red", 2.5)}
"""Colour of the stars, and how long reviews wait for ratings: too long for the page, for the same task."""


def service(name: str, version: str) -> Service:
    """The named service in that version; `VERSIONS` lists both."""
    if name == "reviews":
        return _reviews(version)
    if name == "ratings":
        return _ratings()
    return {"details": _details, "productpage": _productpage}[name]


def _details(exchange: Exchange) -> Answer:
    path = exchange.request.path
    if path == "/health":
        return Answer(200, {"status": "Details is healthy"})
    if not path.startswith("/details"):
        return _not_found(path)
    product = _number(path)
    if product is None:
        return Answer(400, {"error": "please provide numeric product id"})
    book: dict[str, Any] = {
        "id": product,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    }
    return Answer(200, book)


def _ratings() -> Service:
    added: dict[int, Any] = {}  # by product; what was posted to this pod

    def ratings(exchange: Exchange) -> Answer:
        path = exchange.request.path
        if path == "/health":
            return Answer(200, {"status": "Ratings is healthy"})
        if not path.startswith("/ratings/"):
            return _not_found(path)
        product = _number(path)
        if product is None:
            return Answer(400, {"error": "please provide numeric product ID"})
        if exchange.request.method == "POST":
            posted = _json(exchange.request.body)
            if posted is None:
                return Answer(400, {"error": "please provide valid ratings JSON"})
            added[product] = posted
        return Answer(200, {"id": product, "ratings": added.get(product, {"Reviewer1": 5, "Reviewer2": 4})})

    return ratings


def _reviews(version: str) -> Service:
    def reviews(exchange: Exchange) -> Answer:
        path = exchange.request.path
        if path == "/health":
            return Answer(200, {"status": "Reviews is healthy"})
        found = re.fullmatch(r"/reviews/(\d+)", path)
        if found is None:
            return _not_found(path)
        product = found[1]
        first: dict[str, Any] = {"reviewer": "Reviewer1", "text": "Two pairs of twins, one evening of laughter."}
        second: dict[str, Any] = {"reviewer": "Reviewer2", "text": "Quick and merry; do not look for depth."}
        if version in _STARS:
            color, timeout = _STARS[version]
            reply = exchange.get(f"{_address('ratings')}/ratings/{product}", timeout=timeout, headers={})
            first["rating"] = _rating(reply, "Reviewer1", color)
            second["rating"] = _rating(reply, "Reviewer2", color)
        identity = exchange.identity
        cluster = (
            os.environ.get("CLUSTER_NAME") or identity.cluster or "null"
        )  # the sample writes null for a nameless one
        return Answer(200, {"id": product, "podname": identity.pod, "clustername": cluster, "reviews": [first, second]})

    return reviews


def _rating(reply: Reply, reviewer: str, color: str) -> dict[str, Any]:
    stars = reply.body.get("ratings") if reply.status == 200 and isinstance(reply.body, dict) else None
    if isinstance(stars, dict) and isinstance(stars.get(reviewer), int):
        return {"stars": stars[reviewer], "color": color}
    return {"error": "Ratings service is currently unavailable"}


_PRODUCTS = (
    {
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">The Comedy of Errors</a>,'
        " one of <b>William Shakespeare's</b> early plays.",
    },
)


def _productpage(exchange: Exchange) -> Answer:
    request = exchange.request
    path = request.path
    if path == "/health":
        return Answer(200, "Product page is healthy", content_type="text/html; charset=utf-8")
    if path in ("/", "/index.html"):
        return _html(page.index())
    if path == "/productpage":
        book, reviews = _of_product(exchange, "details", "0"), _of_product(exchange, "reviews", "0")
        user = _user(request.headers)
        return _html(
            page.product(_PRODUCTS[0]["title"], _PRODUCTS[0]["descriptionHtml"], book, reviews, user, exchange.served)
        )
    if path == "/login" and request.method == "POST":
        session = quote(request.form.get("username", ""), safe="")
        return _back(exchange, f"session={session}; Path=/; HttpOnly")
    if path == "/logout":
        return _back(exchange, "session=; Path=/; HttpOnly; Max-Age=0")
    if path == "/api/v1/products":
        return Answer(200, list(_PRODUCTS))
    found = re.fullmatch(r"/api/v1/products/([^/]+)(?:/(reviews|ratings))?", path)
    if found is None:
        return _not_found(path)
    return _of_product(exchange, found[2] or "details", found[1])


def _of_product(exchange: Exchange, callee: str, product: str) -> Answer:
    """What *callee* says about a product, or that it says nothing; with its status, 500 when there is none."""
    user = _user(exchange.request.headers)
    status = 500
    for _ in range(_PAGE_ASKS_REVIEWS if callee == "reviews" else 1):
        reply = exchange.get(
            f"{_address(callee)}/{callee}/{quote(product, safe='')}",
            timeout=_PAGE_TIMEOUT,
            headers={"end-user": user} if user else {},
        )
        if reply.status == 200 and isinstance(reply.body, dict):
            return Answer(200, reply.body)
        status = reply.status or 500
    what = f"product {callee}"
    return Answer(status, {"error": f"Sorry, {what} are currently unavailable for this book."})


def _user(headers: Mapping[str, str]) -> str:
    """Who signed in on the product page: the value of the cookie `session`."""
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "session":
            return unquote(value)
    return ""


def _back(exchange: Exchange, cookie: str) -> Answer:
    """Back to where the user came from, with a cookie."""
    location = exchange.request.headers.get("referer", "/productpage")
    return Answer(302, "", {"Location": location, "Set-Cookie": cookie}, "text/html; charset=utf-8")


def _html(text: str) -> Answer:
    return Answer(200, text, content_type="text/html; charset=utf-8")


def _not_found(path: str) -> Answer:
    return Answer(404, {"error": f"{path} is not served here"})


def _address(name: str) -> str:
    domain = os.environ.get("SERVICES_DOMAIN")
    host = os.environ.get(f"{name.upper()}_HOSTNAME", name) + (f".{domain}" if domain else "")
    return f"http://{host}:{os.environ.get(f'{name.upper()}_SERVICE_PORT', PORT)}"


def _number(path: str) -> int | None:
    last = path.rsplit("/", 1)[-1]
    return int(last) if last.isdecimal() else None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None

"""The product page as HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from isthmus.lab.bookinfo.serving import Answer


def index() -> str:
    """The entry: the page as a guest or as somebody."""
    return _document('<p><a href="/productpage">The product page</a></p>' + _login())


def product(
    title: object, description: object, details: Answer, reviews: Answer, user: str, served: Mapping[str, Any]
) -> str:
    """The page about one book; a block whose service failed says so, the others stand."""
    who = f'<p>{escape(user)} <a href="/logout">Sign out</a></p>' if user else _login()
    # A script element ends at the first "</": JSON may write it "<\/".
    chain = json.dumps(served).replace("</", "<\\/")
    return _document(
        f"{who}<h1>{escape(str(title))}</h1><p>{description}</p>{_details(details)}{_reviews(reviews)}"
        f'<script type="application/json" id="served">{chain}</script>'
    )


def _details(answer: Answer) -> str:
    if answer.status != 200:
        return _failed("Error fetching product details", answer)
    names = ("ISBN-10", "publisher", "pages", "type", "language")
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(answer.body.get(name, '')))}</td></tr>" for name in names
    )
    return f"<h4>Book Details</h4><table>{rows}</table>"


def _reviews(answer: Answer) -> str:
    if answer.status != 200:
        return _failed("Error fetching product reviews", answer)
    by = escape(str(answer.body.get("podname")))
    if (cluster := answer.body.get("clustername")) != "null":
        by += f" on cluster {escape(str(cluster))}"
    blocks = []
    for review in answer.body.get("reviews", ()):
        quoted = f"<blockquote>{escape(str(review.get('text')))}</blockquote>"
        blocks.append(f"<section>{_stars(review.get('rating'))}{quoted}<p>{escape(str(review.get('reviewer')))}</p>")
        blocks.append(f"<p>Reviews served by: {by}</p></section>")
    return "<h4>Book Reviews</h4>" + "".join(blocks)


def _stars(rating: Mapping[str, Any] | None) -> str:
    if not rating:
        return ""
    if "error" in rating:
        return f"<p>{escape(str(rating['error']))}</p>"
    stars = int(rating["stars"])
    return f'<p style="color: {escape(str(rating["color"]))}">{"★" * stars}{"☆" * (5 - stars)}</p>'


def _failed(text: str, answer: Answer) -> str:
    return f"<h4>{text}</h4><p>{escape(str(answer.body.get('error', '')))}</p>"


def _login() -> str:
    return (
        '<form method="post" action="/login"><input name="username" required>'
        '<input name="passwd" type="password"><button>Sign in</button></form>'
    )


def _document(body: str) -> str:
    return f'<!doctype html><meta charset="utf-8"><title>Simple Bookstore App</title>{body}\n'

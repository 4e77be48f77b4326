"""Which requests a traffic policy is about, by what they look like."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.lab.policies import applied, policy, shift
from tests.lab.running import Json, Lab, eventually

REVIEWS = "http://reviews:9080/reviews/0"
CANARY = ("cluster2", "v3")
STABLE = ("cluster1", "v1")
MATCHERS: list[Json] = [
    {"uri": {"exact": "/reviews/7"}},
    {"uri": {"prefix": "/reviews/1"}},
    {"uri": {"regex": "/reviews/[89]+"}},
    {"uri": {"suffix": "/42"}},
    {"uri": {"exact": "/REVIEWS/5", "ignoreCase": True}},
    {"headers": [{"name": "end-user", "value": "jason"}]},
    {"headers": [{"name": "X-Team", "value": "b(lu|ron)e", "regex": True}, {"name": "x-bot", "invertMatch": True}]},
    {"queryParameters": [{"name": "debug"}, {"name": "v", "value": "[23]", "regex": True}]},
    {"method": "PUT"},
]


@pytest.fixture(scope="module")
def matched(federated: Lab) -> Iterator[Lab]:
    """Requests to reviews go to v1, those that any of the matchers describes to v3 of cluster2."""
    canary = policy("canary", shift((*CANARY, 100)), httpRequestMatchers=MATCHERS)
    with applied(federated, policy("stable", shift((*STABLE, 100))), canary):
        answered = partial(federated.call, "cluster1", "http://reviews:9080/reviews/7")
        eventually("v3 answers", lambda: answered()[0]["status"] == 200)
        yield federated


@pytest.mark.parametrize(
    ("request_line", "options", "goes_to"),
    [
        ("/reviews/7", (), CANARY),
        ("/reviews/77", (), STABLE),
        ("/reviews/1", (), CANARY),
        ("/reviews/123", (), CANARY),
        ("/reviews/21", (), STABLE),
        ("/reviews/898", (), CANARY),
        ("/reviews/890", (), STABLE),
        ("/reviews/42", (), CANARY),
        ("/reviews/421", (), STABLE),
        ("/reviews/5", (), CANARY),
        ("/reviews/0", ("end-user:jason",), CANARY),
        ("/reviews/0", ("end-user:jasons",), STABLE),
        ("/reviews/0", ("x-team:blue",), CANARY),
        ("/reviews/0", ("x-team:brone",), CANARY),
        ("/reviews/0", ("x-team:blues",), STABLE),
        ("/reviews/0", ("x-team:blue", "x-bot:1"), STABLE),
        ("/reviews/0?debug=1&v=2", (), CANARY),
        ("/reviews/0?debug=&v=3", (), CANARY),
        ("/reviews/0?v=2", (), STABLE),
        ("/reviews/0?debug=1&v=4", (), STABLE),
        ("/reviews/0", ("PUT",), CANARY),
        ("/reviews/0", ("POST",), STABLE),
    ],
)
def test_matchers_choose_requests(
    matched: Lab, request_line: str, options: tuple[str, ...], goes_to: tuple[str, str]
) -> None:
    arguments = [argument for each in options for argument in (("--header" if ":" in each else "--method"), each)]

    answers = matched.call("cluster1", f"http://reviews:9080{request_line}", *arguments, "-n", "5")

    assert {(answer["status"], answer["cluster"], answer["version"]) for answer in answers} == {(200, *goes_to)}

"""The client's container program, and `call` as a person or a test runs it in the pod."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import isthmus.lab

CALL = Path(isthmus.lab.__file__).with_name("call")


class _Handler(BaseHTTPRequestHandler):
    """Answers as two pods that take turns; /503 fails, /echo repeats the request."""

    turn = 0

    def do_GET(self) -> None:
        type(self).turn += 1
        status = 503 if self.path == "/503" else 200
        length = int(self.headers.get("Content-Length", 0))
        body: dict[str, object] = {"method": self.command, "headers": dict(self.headers), "turn": self.turn}
        body["data"] = self.rfile.read(length).decode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Served-Service", "reviews")
        self.send_header("X-Served-Cluster", "cluster2")
        self.send_header("X-Served-Pod", f"reviews-{self.turn % 2}")
        self.send_header("X-Served-Version", "v3")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a server."""
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def call(*argv: str) -> list[dict[str, Any]]:
    """The lines that `call` prints, run as in the container."""
    env = {"PYTHON": sys.executable, "PATH": os.environ["PATH"]}
    done = subprocess.run([CALL, *argv], env=env, capture_output=True, text=True, timeout=30, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_call_says_who_answered_what(url: str) -> None:
    [line] = call(f"{url}/reviews/0")

    assert line["status"] == 200
    assert (line["cluster"], line["service"], line["version"]) == ("cluster2", "reviews", "v3")
    assert line["pod"].startswith("reviews-")
    assert line["body"]["method"] == "GET"
    assert line["headers"]["content-type"] == "application/json"
    assert line["ms"] > 0


def test_method_headers_and_body_are_sent(url: str) -> None:
    [line] = call(
        f"{url}/echo", "--method", "POST", "--data", "a=b", "--header", "end-user: jason", "--header", "Host:x.y"
    )

    assert line["body"]["method"] == "POST"
    assert line["body"]["data"] == "a=b"
    assert line["body"]["headers"]["end-user"] == "jason"
    assert line["body"]["headers"]["Host"] == "x.y"


def test_several_calls_end_with_a_summary(url: str) -> None:
    *lines, last = call(f"{url}/reviews/0", "-n", "6")

    summary = last["summary"]
    assert [line["n"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert summary["calls"] == 6
    assert summary["statuses"] == {"200": 6}
    assert summary["pods"] == {"cluster2/reviews-0": 3, "cluster2/reviews-1": 3}
    assert summary["versions"] == {"cluster2/reviews-v3": 6}
    assert summary["errors"] == {}


def test_a_summary_alone_still_shows_failures(url: str) -> None:
    *none, fine = call(f"{url}/reviews/0", "-n", "3", "--summary")
    *lines, last = call(f"{url}/503", "-n", "3", "--summary")

    assert none == []
    assert fine["summary"]["statuses"] == {"200": 3}
    assert [line["status"] for line in lines] == [503] * 3
    assert last["summary"]["statuses"] == {"503": 3}


def test_no_answer_is_a_line_too() -> None:
    [refused] = call("http://127.0.0.1:1/")

    assert refused["status"] is None
    assert refused["error"].startswith("ConnectionRefusedError")


def test_a_rate_spreads_the_calls(url: str) -> None:
    """No call comes before its turn; one that is late does not put off the others."""
    started = time.time()

    *lines, _ = call(f"{url}/reviews/0", "-n", "5", "--rate", "20")

    assert len(lines) == 5
    assert all(line["at"] - started >= number / 20 - 0.001 for number, line in enumerate(lines))


def test_time_ends_the_calls(url: str) -> None:
    *lines, last = call(f"{url}/reviews/0", "--for", "0.5", "--rate", "10")

    assert 2 <= len(lines) <= 6
    assert last["summary"]["calls"] == len(lines)


def test_a_signal_ends_the_calls_with_the_summary(url: str) -> None:
    argv = [sys.executable, "-m", "isthmus.lab.client", "call", f"{url}/reviews/0", "--for", "60", "--rate", "50"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as calls:
        assert calls.stdout is not None
        first = calls.stdout.readline()
        calls.terminate()
        *_, last = calls.stdout

    assert json.loads(first)["n"] == 1
    assert json.loads(last)["summary"]["statuses"].keys() == {"200"}
    assert calls.returncode == 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["call", "http://x", "-n", "0"], "0 is not greater than 0"),
        (["call", "http://x", "--header", "nothing"], "'nothing' is not a header such as end-user:jason"),
        (["call"], "required: URL"),
        (["cal"], "'cal' is not call"),
    ],
)
def test_misuse_is_refused(argv: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isthmus.lab.client", *argv], capture_output=True, text=True, timeout=20
    )

    assert done.returncode == 2
    assert says in done.stderr


def test_a_url_that_is_none_is_an_error() -> None:
    [line] = call("reviews:9080/reviews/0")

    assert "is not a URL such as http://reviews:9080/reviews/0" in line["error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_sleeper_ends_when_told(number: signal.Signals) -> None:
    """The first process of a container gets only signals that it asks for; else the kubelet would wait in vain."""
    with subprocess.Popen([sys.executable, "-m", "isthmus.lab.client"], stdout=subprocess.PIPE, text=True) as sleeper:
        assert sleeper.stdout is not None
        said = sleeper.stdout.readline()
        sleeper.send_signal(number)
        code = sleeper.wait(5)

    assert said == "sleeps until it is told to stop\n"
    assert code == 0

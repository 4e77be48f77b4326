"""When containers are probed, what answers amount to, and that each kind of probe asks as Kubernetes does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib.health.service import Health
from grpclib.server import Server
from hypothesis import given
from hypothesis import strategies as st

from isthmus.embedded.certificates import issue_credentials, save_credentials
from isthmus.lab.kubelet.probes import Probe, Tally, port_number, probe_of
from isthmus.lab.kubelet.probing import ProbeFailed, ask
from tests.unit.lab.kubelet.pods import Manifest, container

GET: Manifest = {"httpGet": {"path": "/", "port": 80}}


def verdicts(tally: Tally, *answers: tuple[float, bool]) -> list[bool | None]:
    """The verdict after each answer, given at its time."""
    found = []
    for at, succeeded in answers:
        tally.count(succeeded, at)
        found.append(tally.verdict)
    return found


def test_kubernetes_defaults() -> None:
    found = probe_of(container(livenessProbe=GET), "liveness")

    assert found == Probe("liveness", GET, delay=0, period=10, timeout=1, successes=1, failures=3, grace=None)
    assert probe_of(container(), "liveness") is None


def test_a_live_container_fails_after_as_many_failures_in_a_row() -> None:
    tally = Tally(Probe("liveness", GET, failures=3))

    found = verdicts(tally, (0, False), (10, False), (20, True), (30, False), (40, False), (50, False))

    assert found == [True, True, True, True, True, False]
    assert tally.pause() == 10


def test_a_container_is_ready_after_as_many_successes_in_a_row() -> None:
    tally = Tally(Probe("readiness", GET, successes=2))

    assert verdicts(tally, (0, True), (1, False), (2, True), (3, True)) == [None, None, None, True]


def test_who_is_not_ready_yet_is_asked_often() -> None:
    tally = Tally(Probe("readiness", GET, period=10))

    pauses = [tally.pause() for _ in range(12)]

    assert pauses[0] == pytest.approx(0.2)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(1.0)
    tally.count(True, 0.0)
    assert tally.pause() == 10


def test_eager_probes_leave_as_much_time_to_start_as_there_is() -> None:
    """Failures count once a period, however often is asked."""
    tally = Tally(Probe("startup", GET, period=1, failures=3))

    at = 0.0
    while tally.verdict is None:
        tally.count(False, at)
        at += 0.2

    assert at > 2.0


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 3), st.integers(1, 3))
def test_the_verdict_follows_the_last_run_of_equal_answers(answers: list[bool], successes: int, failures: int) -> None:
    tally = Tally(Probe("liveness", GET, period=1, successes=successes, failures=failures))

    for at, answer in enumerate(answers):
        tally.count(answer, float(at))

    expected = True
    for end in range(1, len(answers) + 1):
        last = answers[end - 1]
        run = next((n for n in range(end) if answers[end - 1 - n] != last), end)
        if run >= (successes if last else failures):
            expected = last
    assert tally.verdict is expected


def test_a_probe_may_name_its_port() -> None:
    own = container(ports=[{"name": "http", "containerPort": 8080}])

    assert port_number("http", own) == 8080
    assert port_number("9090", own) == 9090
    assert port_number(1, own) == 1
    with pytest.raises(ValueError, match="no port 'grpc'"):
        port_number("grpc", own)


# What is asked, of a server that is there


@asynccontextmanager
async def server(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """One that answers every request with *answer*; its port, and the requests."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            heard.append(b"")
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heard


async def no_command(argv: Sequence[str]) -> tuple[int, str]:
    raise AssertionError(f"ran {argv}")


async def probe(action: Manifest, own: Manifest | None = None) -> None:
    await ask(action, own or container(), "127.0.0.1", no_command, 2.0)


@pytest.mark.parametrize("code", [200, 204, 302, 399])
async def test_http_success(code: int) -> None:
    async with server(f"HTTP/1.1 {code} Whatever\r\n\r\n".encode()) as (port, heard):
        headers = [{"name": "X-Probe", "value": "yes"}, {"name": "host", "value": "other"}]
        own = container(ports=[{"name": "web", "containerPort": port}])

        await probe({"httpGet": {"path": "/healthz?full", "port": "web", "httpHeaders": headers}}, own)

    lines = heard[0].decode().split("\r\n")
    assert lines[0] == "GET /healthz?full HTTP/1.1"
    assert "X-Probe: yes" in lines
    assert "host: other" in lines
    assert not any(line.startswith("Host:") for line in lines)
    assert "User-Agent: kube-probe/1.36" in lines


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "statuscode: 503"),
        (b"HTTP/1.1 404\r\n\r\n", "statuscode: 404"),
        (b"SSH-2.0\r\n", "no HTTP answer"),
        (b"", "no HTTP answer"),
        (b"x" * 10000, "limit|longer|chunk"),
    ],
)
async def test_http_failure(answer: bytes, said: str) -> None:
    async with server(answer) as (port, _):
        with pytest.raises(ProbeFailed, match=said):
            await probe({"httpGet": {"port": port}})


async def test_https_without_verification(tmp_path: Path) -> None:
    save_credentials(issue_credentials("token", ("nowhere.example",)), tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    async with server(b"HTTP/1.1 200 OK\r\n\r\n", tls) as (port, _):
        await probe({"httpGet": {"port": port, "scheme": "HTTPS"}})


async def test_tcp() -> None:
    async with server(b"") as (port, _):
        await probe({"tcpSocket": {"port": port}})

    with pytest.raises(ProbeFailed, match="Connect call failed"):
        await probe({"tcpSocket": {"port": port}})


async def test_grpc() -> None:
    grpc = Server([Health()])
    await grpc.start("127.0.0.1", 0)
    assert grpc._server is not None
    port = grpc._server.sockets[0].getsockname()[1]
    try:
        await probe({"grpc": {"port": port}})
        with pytest.raises(ProbeFailed):
            await probe({"grpc": {"port": port, "service": "unknown"}})
    finally:
        grpc.close()
        await grpc.wait_closed()


@pytest.mark.parametrize(("code", "said"), [(0, ""), (3, "out of cheese"), (3, "")])
async def test_exec(code: int, said: str) -> None:
    ran: list[Any] = []

    async def run(argv: Sequence[str]) -> tuple[int, str]:
        ran.append(argv)
        return code, said

    outcome = ""
    try:
        await ask({"exec": {"command": ["check", "-v"]}}, container(), "127.0.0.1", run, 1.0)
    except ProbeFailed as error:
        outcome = str(error)

    assert ran == [["check", "-v"]]
    assert outcome == ({0: "", 3: said or "exit code 3"}[code])


async def test_an_answer_that_takes_too_long_is_none() -> None:
    async def forever(argv: Sequence[str]) -> tuple[int, str]:
        await asyncio.Event().wait()
        return 0, ""

    with pytest.raises(ProbeFailed, match=r"no answer within 0\.01 s"):
        await ask({"exec": {"command": ["x"]}}, container(), "127.0.0.1", forever, 0.01)

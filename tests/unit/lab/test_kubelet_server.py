"""The kubelet's endpoint over real TLS, asked by a client of its own that speaks HTTP and SPDY on the bare socket."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import h11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isthmus.embedded.certificates import Credentials, KeyPair, issue_credentials, save_credentials
from isthmus.lab.kubelet.server import KubeletServer
from isthmus.lab.kubelet.spdy import Codec, Data, Frame, GoAway, Ping, Reset, ResetStatus, SynReply, SynStream
from isthmus.lab.kubelet.streams import FULL, Session, Stream
from isthmus.lab.runtime import StartFailed

SOON = 20.0  # seconds until what must happen counts as not happening
EXEC = "v4.channel.k8s.io"
FORWARD = "portforward.k8s.io"


class Shell:
    """A container as far as the server knows one: programs run beside the test."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.started: list[asyncio.subprocess.Process] = []

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    async def exec(
        self, argv: Sequence[str], *, stdin: int | None, stdout: int | None, stderr: int | None
    ) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
            )
        except OSError as error:
            raise StartFailed(f"{argv[0]}: {error.strerror}") from error
        self.started.append(process)
        return process


class Pods:
    """One pod, default/web, with one container, main, and a log in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.shell = Shell()
        self.path = directory / "0.log"
        self.before = directory / "previous.log"

    def process(self, namespace: str, pod: str, container: str) -> Shell | None:
        running = not self.shell.ended.done()
        return self.shell if running and (namespace, pod, container) == ("default", "web", "main") else None

    def log(self, namespace: str, pod: str, container: str, previous: bool = False) -> Path | None:
        if (namespace, pod, container) != ("default", "web", "main"):
            return None
        return self.before if previous else self.path

    async def connect(self, namespace: str, pod: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)


class Kubelet:
    """A server under test and how to reach it."""

    def __init__(self, pods: Pods, port: int, credentials: Credentials, directory: Path) -> None:
        self.pods = pods
        self.port = port
        self.credentials = credentials
        self.directory = directory

    def tls(self, client: KeyPair | None) -> ssl.SSLContext:
        """What a client with this certificate connects with."""
        context = ssl.create_default_context(cadata=self.credentials.authority.certificate.decode())
        if client is not None:
            file = self.directory / "client.pem"
            file.write_bytes(client.certificate + client.key)
            context.load_cert_chain(file)
        return context

    async def connect(self, client: KeyPair | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls(client))

    @asynccontextmanager
    async def asking(self, path: str, client: KeyPair | None = None) -> AsyncIterator[Answer]:
        """A GET as the API server's, and its answer as it comes."""
        reader, writer = await self.connect(client or self.credentials.admin)
        http = h11.Connection(h11.CLIENT)
        request = h11.Request(method="GET", target=path, headers=[("host", "kubelet")])
        writer.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        try:
            yield await Answer.start(http, reader)
        finally:
            writer.close()

    async def get(self, path: str, client: KeyPair | None = None) -> tuple[int, str]:
        """Status and text of the whole answer."""
        async with asyncio.timeout(SOON), self.asking(path, client) as answer:
            return answer.status, (await answer.rest()).decode()

    async def logs(self, **query: object) -> str:
        """What `kubectl logs` prints."""
        status, text = await self.get(f"/containerLogs/default/web/main?{urlencode(query)}")
        assert status == 200, text
        return text

    @asynccontextmanager
    async def upgraded(self, path: str, *protocols: str) -> AsyncIterator[Spdy]:
        """A connection that has left HTTP."""
        reader, writer = await self.connect(self.credentials.admin)
        lines = [f"POST {path} HTTP/1.1", "Host: kubelet", "Content-Length: 0", "Connection: Upgrade"]
        lines += ["Upgrade: SPDY/3.1", *(f"X-Stream-Protocol-Version: {protocol}" for protocol in protocols)]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SOON)).decode()
        if not head.startswith("HTTP/1.1 101"):
            size = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
            text = (await reader.readexactly(size)).decode()
            writer.close()
            raise AssertionError(f"{head.splitlines()[0]} {text}")
        assert f"x-stream-protocol-version: {protocols[-1]}" in head
        client = Spdy(reader, writer)
        async with asyncio.timeout(2 * SOON), asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(client.read())
            yield client
            writer.close()
            reading.cancel()

    @asynccontextmanager
    async def exec(
        self, *argv: str, tty: bool = False, stdin: bool = True
    ) -> AsyncIterator[Mapping[str, ClientStream]]:
        """What `kubectl exec` opens: its streams by type."""
        query = {"output": 1, "input": int(stdin)} | ({"tty": 1} if tty else {"error": 1})
        path = f"/exec/default/web/main?{urlencode(query)}&" + "&".join(f"command={quote(word)}" for word in argv)
        async with self.upgraded(path, "v5.channel.k8s.io", EXEC) as client:
            kinds = ["error", *(["stdin"] if stdin else []), "stdout", "resize" if tty else "stderr"]
            yield {kind: await client.open(streamtype=kind) for kind in kinds}


class Answer:
    """An HTTP answer as it arrives."""

    def __init__(self, http: h11.Connection, reader: asyncio.StreamReader, status: int) -> None:
        self._http = http
        self._reader = reader
        self.status = status

    @classmethod
    async def start(cls, http: h11.Connection, reader: asyncio.StreamReader) -> Answer:
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                return cls(http, reader, event.status_code)

    async def piece(self) -> bytes:
        """Some of the body; none at its end."""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.Data):
                return bytes(event.data)
            else:
                assert isinstance(event, h11.EndOfMessage)
                return b""

    async def until(self, text: bytes) -> bytes:
        """The body as far as *text*."""
        got = b""
        while text not in got:
            piece = await self.piece()
            assert piece, f"ended with {got!r}"
            got += piece
        return got

    async def rest(self) -> bytes:
        got = b""
        while piece := await self.piece():
            got += piece
        return got


class ClientStream:
    """A stream that the test opened."""

    def __init__(self, client: Spdy, number: int) -> None:
        self.client = client
        self.number = number
        self.got = bytearray()
        self.ended = False
        self.reset = 0
        self.accepted = False

    async def send(self, data: bytes = b"", *, fin: bool = False) -> None:
        pieces = [data[at : at + 32768] for at in range(0, len(data), 32768)] or [b""]
        for place, piece in enumerate(pieces):
            await self.client.send(Data(self.number, piece, fin and place == len(pieces) - 1))

    async def all(self) -> bytes:
        """What came, once the server has ended it."""
        await self.client.until(lambda: self.ended)
        return bytes(self.got)


class Spdy:
    """The client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.codec = Codec()
        self.streams: dict[int, ClientStream] = {}
        self.pongs: list[int] = []
        self.went_away: GoAway | None = None
        self.closed = False
        self.reading = asyncio.Event()
        self.reading.set()
        self._changed = asyncio.Event()
        self._next = 1

    async def send(self, frame: Frame) -> None:
        self.writer.write(self.codec.send(frame))
        await self.writer.drain()

    async def open(self, number: int = 0, **headers: str) -> ClientStream:
        """A new stream, once the server has taken or refused it."""
        number = number or self._next
        self._next = number + 2
        stream = self.streams[number] = ClientStream(self, number)
        await self.send(SynStream(number, headers))
        await self.until(lambda: stream.accepted or stream.reset)
        return stream

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(SOON):
            while not true():
                assert not self.closed, "the server has closed the connection"
                self._changed.clear()
                await self._changed.wait()

    async def read(self) -> None:
        with suppress(ConnectionError):
            while data := await self.reader.read(65536):
                for frame in self.codec.receive(data):
                    self._take(frame)
                self._changed.set()
                await self.reading.wait()
        self.closed = True
        self._changed.set()

    def _take(self, frame: Frame) -> None:
        match frame:
            case SynReply(stream=number):
                self.streams[number].accepted = True
            case Data(stream=number, data=data, fin=fin):
                stream = self.streams[number]
                assert stream.accepted, "data before the reply; the real client drops it"
                assert not stream.ended, "data after the end"
                stream.got += data
                stream.ended = fin
            case Reset(stream=number, status=status):
                self.streams[number].reset = status
            case Ping(number=number):
                self.pongs.append(number)
            case GoAway():
                self.went_away = frame


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    """A server on a port of its own, for one pod."""
    credentials = issue_credentials("token", ("127.0.0.1",))
    save_credentials(credentials, tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    pods = Pods(tmp_path)
    server = KubeletServer(pods, tls, manifests=lambda: [{"metadata": {"name": "web"}}])
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(listener))
    try:
        yield Kubelet(pods, listener.getsockname()[1], credentials, tmp_path)
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        for process in pods.shell.started:
            assert process.returncode is not None, "a command outlives its connection"


async def until(true: Callable[[], object]) -> None:
    """Wait for something that only the machine's state tells."""
    async with asyncio.timeout(SOON):
        while not true():  # noqa: ASYNC110 - processes and files have no event
            await asyncio.sleep(0.02)


def status_of(text: bytes) -> tuple[str, str, str]:
    """Status, reason and exit code of what comes on an error stream."""
    status = json.loads(text)
    causes: list[dict[str, Any]] = status.get("details", {}).get("causes", [])
    return status["status"], status.get("reason", ""), causes[0]["message"] if causes else ""


def issued(authority: KeyPair, organization: str) -> KeyPair:
    """A client certificate of the cluster's authority for a user in the group *organization*."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    names = ((NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, "system:node:a"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in names]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(serialization.load_pem_private_key(authority.key, None), hashes.SHA256())  # type: ignore[arg-type]
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), pem)


# Who may come in, and where


async def test_the_api_server_is_answered(kubelet: Kubelet) -> None:
    """Its certificate is an administrator's of the cluster."""
    assert await kubelet.get("/healthz") == (200, "ok")
    status, text = await kubelet.get("/pods")
    assert (status, json.loads(text)["items"]) == (200, [{"metadata": {"name": "web"}}])


async def test_nobody_else_is(kubelet: Kubelet) -> None:
    """No certificate and one of another authority end at TLS; one of the cluster's, of a node say, is told why not."""
    node = issued(kubelet.credentials.authority, "system:nodes")
    stranger = issue_credentials("token", ("127.0.0.1",)).admin

    status, text = await kubelet.get("/exec/default/web/main?command=id&output=1", node)
    assert (status, text) == (403, "only system:masters may ask a kubelet")
    for client in (None, stranger):
        reader, writer = await kubelet.connect(client)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: kubelet\r\n\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), SOON)
        writer.close()


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/exec/default/web/other?command=id&output=1", 404, 'container "other" of pod "web" does not run'),
        ("/exec/default/web/main?output=1", 400, "a command is missing"),
        ("/exec/default/web/main?command=id", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/default/web/main?command=id&output=1", 400, "unable to upgrade"),
        ("/portForward/default/web", 400, "unable to upgrade"),
        ("/containerLogs/default/web/other", 400, 'container "other" in pod "web" is not available'),
        ("/containerLogs/default/web/main?previous=true", 400, 'previous terminated container "main" in pod "web"'),
        ("/containerLogs/default/web/main?tailLines=few", 422, "'few' is not a count"),
        ("/containerLogs/default/web/main?sinceTime=2024-01-01T00:00:00", 422, "is not a time such as"),
        ("/containerLogs/default/web/main?stream=Stdin", 422, "is none of All, Stdout, Stderr"),
        ("/attach/default/web/main", 404, "not found"),
        ("/", 404, "not found"),
    ],
)
async def test_what_cannot_be_is_refused_before_the_upgrade(
    kubelet: Kubelet, path: str, status: int, text: str
) -> None:
    """The API server hands these texts on to the user."""
    found = await kubelet.get(path)
    assert found[0] == status
    assert text in found[1]


async def test_one_connection_takes_many_requests(kubelet: Kubelet) -> None:
    """The API server keeps connections to a kubelet, also after a refusal."""
    reader, writer = await kubelet.connect(kubelet.credentials.admin)
    for path, status in (("/nothing", b"404"), ("/healthz", b"200"), ("/healthz", b"200")):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: kubelet\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SOON)
        assert head.startswith(b"HTTP/1.1 " + status)
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()


async def test_other_stream_protocols_are_refused(kubelet: Kubelet) -> None:
    """Protocol 4 is what carries exit codes; the refusal names it."""
    with pytest.raises(AssertionError, match=r"403.*only v4.channel.k8s.io is served; asked: v1.channel.k8s.io"):
        async with kubelet.upgraded("/exec/default/web/main?command=id&output=1", "v1.channel.k8s.io"):
            pass


# exec


async def test_input_comes_back_as_output(kubelet: Kubelet) -> None:
    """Megabytes both ways at once, unchanged; the end of the input is passed on, or cat would not end."""
    data = os.urandom(3_000_000)
    async with kubelet.exec("cat") as streams:
        await streams["stdin"].send(data, fin=True)

        assert await streams["stdout"].all() == data
        assert await streams["stderr"].all() == b""
        assert status_of(await streams["error"].all()) == ("Success", "", "")


async def test_exit_code_and_both_outputs_arrive(kubelet: Kubelet) -> None:
    """Each on its stream; the code in the form that kubectl makes its own exit code of."""
    async with kubelet.exec("sh", "-c", "echo out; echo err >&2; exit 7", stdin=False) as streams:
        assert await streams["stdout"].all() == b"out\n"
        assert await streams["stderr"].all() == b"err\n"
        assert status_of(await streams["error"].all()) == ("Failure", "NonZeroExitCode", "7")


async def test_signal_counts_as_128_and_its_number(kubelet: Kubelet) -> None:
    """As a shell and every container runtime count."""
    async with kubelet.exec("sh", "-c", "kill -9 $$", stdin=False) as streams:
        assert status_of(await streams["error"].all()) == ("Failure", "NonZeroExitCode", "137")


async def test_command_that_cannot_start_is_a_failure(kubelet: Kubelet) -> None:
    """Without a Status the client would take the end of its streams for a success."""
    async with kubelet.exec("/no/such/program", stdin=False) as streams:
        assert status_of(await streams["error"].all())[:2] == ("Failure", "InternalError")
        assert b"/no/such/program" in streams["error"].got
        assert await streams["stdout"].all() == b""


async def test_words_of_a_command_are_kept_apart(kubelet: Kubelet) -> None:
    """Spaces, quotes, ampersands and letters beyond ASCII; an empty word too."""
    words = ["a b", "'c'", "d&e=f", "ü", "", "%41"]
    async with kubelet.exec(
        sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words, stdin=False
    ) as streams:
        assert json.loads(await streams["stdout"].all()) == words


async def test_child_that_keeps_the_output_open_holds_nobody_up(kubelet: Kubelet) -> None:
    """The command ends, and so does its output; what it left behind writes to nobody."""
    async with kubelet.exec("sh", "-c", "sleep 60 & echo $!", stdin=False) as streams:
        pid = int(await streams["stdout"].all())
        assert status_of(await streams["error"].all()) == ("Success", "", "")
        os.kill(pid, 9)


async def test_command_that_reads_no_input_ends_well(kubelet: Kubelet) -> None:
    """What the client still sends is dropped, but read: that the client leaves comes behind it."""
    async with kubelet.exec("head", "-c", "5") as streams:
        await streams["stdin"].send(b"hello" + bytes(4_000_000))

        assert await streams["stdout"].all() == b"hello"
        assert status_of(await streams["error"].all()) == ("Success", "", "")
        client = streams["stdin"].client
        await client.send(Ping(1))
        await client.until(lambda: client.pongs)
        await client.send(GoAway(0))
        await until(lambda: client.closed)


async def test_command_ends_with_its_client(kubelet: Kubelet) -> None:
    """Ctrl-C at kubectl leaves no process behind; the fixture looks for one."""
    async with kubelet.exec("sleep", "600") as streams:
        streams["stdin"].client.writer.transport.abort()
    await until(lambda: [process.returncode for process in kubelet.pods.shell.started] == [-9])


async def test_slow_client_holds_the_command_up(kubelet: Kubelet, tmp_path: Path) -> None:
    """What the client does not read stays with the command: a log of gigabytes must not gather in the server."""
    counter = tmp_path / "written"
    program = f"""
import os
for piece in range(1500):
    os.write(1, bytes(65536))
    open({str(counter)!r}, "a").write(".")
"""
    async with kubelet.exec(sys.executable, "-c", program, stdin=False) as streams:
        client = streams["stdout"].client
        client.reading.clear()
        sizes = [-1, -2]

        def still() -> bool:
            sizes.append(counter.stat().st_size if counter.exists() else 0)
            return sizes[-1] > 0 and len(set(sizes[-25:])) == 1

        await until(still)
        assert sizes[-1] * 65536 < 32 * 2**20, "most of it was read ahead"

        client.reading.set()
        assert len(await streams["stdout"].all()) == 1500 * 65536


async def test_command_that_does_not_read_holds_its_client_up(kubelet: Kubelet) -> None:
    """The same the other way round, until the command reads."""
    program = "import sys; sys.stdout.write('up\\n'); sys.stdout.flush(); " + (
        "open(sys.argv[1]).read(); print(len(sys.stdin.buffer.read()))"
    )
    gate = kubelet.directory / "gate"
    os.mkfifo(gate)
    async with kubelet.exec(sys.executable, "-c", program, str(gate)) as streams:
        stdin = streams["stdin"]
        await stdin.client.until(lambda: streams["stdout"].got)
        sending = asyncio.create_task(stdin.send(bytes(64 * 2**20), fin=True))
        await until(lambda: stdin.client.writer.transport.get_write_buffer_size() > 0)
        before = time.monotonic()
        await asyncio.wait((sending,), timeout=1.0)
        assert not sending.done(), f"64 MiB were taken in {time.monotonic() - before:.1f} s"

        gate.write_text("")
        await sending
        assert (await streams["stdout"].all()).split() == [b"up", b"%d" % (64 * 2**20)]


async def test_terminal_has_the_clients_size(kubelet: Kubelet) -> None:
    """One stream for both outputs, an echo, and the latest size that was sent."""
    async with kubelet.exec("sh", "-c", "tty; read line; stty size; exit 3", tty=True) as streams:
        stdout = streams["stdout"]
        await stdout.client.until(lambda: b"\n" in stdout.got)
        await streams["resize"].send(b'{"Width":80,"Height":24}\n{"Width":111,')
        await streams["resize"].send(b'"Height":33}\n')
        await streams["resize"].send(b'{"Width":-1,"Height":70000}\n')  # no terminal's
        await streams["stdin"].send(b"go\r")

        device, echo, size = (await stdout.all()).split(b"\r\n")[:3]
        assert device.startswith(b"/dev/pts/")
        assert (echo, size) == (b"go", b"33 111")
        assert status_of(await streams["error"].all()) == ("Failure", "NonZeroExitCode", "3")


async def test_terminal_gives_all_that_was_written(kubelet: Kubelet) -> None:
    """Also what the command wrote last, before its terminal went."""
    async with kubelet.exec("sh", "-c", "stty -onlcr; seq 100000", tty=True) as streams:
        assert await streams["stdout"].all() == b"".join(b"%d\n" % line for line in range(1, 100001))


# The connection


async def test_streams_that_the_command_has_not_are_refused(kubelet: Kubelet) -> None:
    """A second stdout, a size without a terminal, and numbers that are not a client's or do not grow."""
    async with kubelet.upgraded("/exec/default/web/main?command=cat&output=1&input=1", EXEC) as client:
        await client.open(5, streamtype="stdout")
        assert (await client.open(7, streamtype="stdout")).reset == ResetStatus.REFUSED_STREAM
        assert (await client.open(9, streamtype="resize")).reset == ResetStatus.REFUSED_STREAM
        assert (await client.open(3, streamtype="stdin")).reset == ResetStatus.PROTOCOL_ERROR
        assert (await client.open(4, streamtype="stdin")).reset == ResetStatus.PROTOCOL_ERROR


async def test_pings_are_answered(kubelet: Kubelet) -> None:
    """The API server sends one every five seconds. One with our parity would be the answer to one of ours."""
    async with kubelet.upgraded("/portForward/default/web", FORWARD) as client:
        for number in (1, 2, 3):
            await client.send(Ping(number))
        await client.until(lambda: 3 in client.pongs)
        assert client.pongs == [1, 3]


async def test_nonsense_ends_the_connection(kubelet: Kubelet) -> None:
    """With the reason, and only that connection."""
    async with kubelet.upgraded("/portForward/default/web", FORWARD) as client:
        client.writer.write(b"\x80\x02 nonsense")
        await until(lambda: client.closed)
        assert client.went_away == GoAway(0, 1)
    assert await kubelet.get("/healthz") == (200, "ok")


async def test_client_that_has_gone_is_noticed_while_nobody_reads() -> None:
    """A connection that is not read does not show its end, and what runs for its client would run for ever."""
    ended = asyncio.get_running_loop().create_future()
    taken: list[Stream] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Session(reader, writer, probe_seconds=0.05).run(lambda stream: taken.append(stream) is None)
        except ConnectionError as error:
            ended.set_result(error)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        codec = Codec()
        writer.write(codec.send(SynStream(1)) + codec.send(Data(1, bytes(FULL))))
        while Ping(2) not in codec.receive(await asyncio.wait_for(reader.read(65536), SOON)):
            pass  # until the session waits for room and asks whether anybody is there
        writer.transport.abort()

        assert isinstance(await asyncio.wait_for(ended, SOON), ConnectionError)
        assert taken[0].gone.is_set()


# port-forward


@asynccontextmanager
async def serving(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A program in the pod that listens; its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield str(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def pair(client: Spdy, port: str, request: int) -> tuple[ClientStream, ClientStream]:
    """Error and data stream of one connection, as kubectl opens them."""
    errors = await client.open(streamtype="error", port=port, requestid=str(request))
    await errors.send(fin=True)
    return errors, await client.open(streamtype="data", port=port, requestid=str(request))


async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read to the end, answer with what it was: only a client whose end is passed on gets an answer."""
    data = await reader.read(-1)
    writer.write(hashlib.sha256(data).digest() + data)
    await writer.drain()


async def test_connections_share_a_port_forward(kubelet: Kubelet) -> None:
    """Each gets its own bytes back, megabytes of them, after it has ended its side."""
    payloads = [os.urandom(1_000_000 + number) for number in range(6)]
    async with serving(digest) as port, kubelet.upgraded("/portForward/default/web", FORWARD) as client:

        async def forward(number: int) -> None:
            errors, data = await pair(client, port, number)
            await data.send(payloads[number], fin=True)
            got = await data.all()
            assert got[32:] == payloads[number]
            assert got[:32] == hashlib.sha256(payloads[number]).digest()
            assert await errors.all() == b""

        async with asyncio.TaskGroup() as tasks:
            for number in range(len(payloads)):
                tasks.create_task(forward(number))


async def test_port_that_nobody_listens_on_is_said(kubelet: Kubelet) -> None:
    """On the error stream of that connection; the next one works."""
    async with serving(digest) as port:
        pass
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(kubelet.upgraded("/portForward/default/web", FORWARD))
        errors, data = await pair(client, port, 0)
        text = (await errors.all()).decode()
        assert re.match(rf"error forwarding port {port} to pod default/web: .*Connect", text)
        assert await data.all() == b""

        port = await stack.enter_async_context(serving(digest))
        errors, data = await pair(client, port, 1)
        await data.send(b"x", fin=True)
        assert (await data.all())[32:] == b"x"


async def test_reset_ends_the_connection_in_the_pod(kubelet: Kubelet) -> None:
    """And a client that leaves ends all of its."""
    ends: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        ends.put_nowait(await reader.read(-1))

    async with serving(listen) as port:
        async with kubelet.upgraded("/portForward/default/web", FORWARD) as client:
            for number in range(3):
                _, data = await pair(client, port, number)
                await client.until(lambda data=data: data.got == b"hello")
            await client.send(Reset(data.number, ResetStatus.CANCEL))
            assert await asyncio.wait_for(ends.get(), SOON) == b""
            assert ends.empty()
        for _ in range(2):
            assert await asyncio.wait_for(ends.get(), SOON) == b""


async def test_streams_without_a_partner_are_refused(kubelet: Kubelet) -> None:
    """No port, no such type, a second error stream, another port than its partner's."""
    async with kubelet.upgraded("/portForward/default/web", FORWARD) as client:
        refused = ResetStatus.REFUSED_STREAM
        assert (await client.open(streamtype="data", requestid="0")).reset == refused
        assert (await client.open(streamtype="data", port="0", requestid="0")).reset == refused
        assert (await client.open(streamtype="stdout", port="80", requestid="0")).reset == refused
        assert not (await client.open(streamtype="error", port="80", requestid="1")).reset
        assert (await client.open(streamtype="error", port="80", requestid="1")).reset == refused
        assert not (await client.open(streamtype="error", port="80", requestid="2")).reset
        assert (await client.open(streamtype="data", port="81", requestid="2")).reset == refused


# logs

LINES = (
    "2024-01-01T00:00:01.000000001Z stdout F one\n"
    "2024-01-01T00:00:02.5Z stderr F two\n"
    "2024-01-01T00:00:03Z stdout P thr\n"
    "2024-01-01T00:00:03.1Z stdout F ee\n"
    "2024-01-01T00:00:04Z stdout F \n"
    "2024-01-01T00:00:05Z stdout F five  with spaces\n"
)
TEXT = "one\ntwo\nthree\n\nfive  with spaces\n"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, TEXT),
        ({"tailLines": 0}, ""),
        ({"tailLines": 1}, "five  with spaces\n"),
        ({"tailLines": 5}, "two\nthree\n\nfive  with spaces\n"),
        ({"tailLines": 100}, TEXT),
        ({"limitBytes": 6}, "one\ntw"),
        ({"sinceTime": "2024-01-01T00:00:02.5Z"}, TEXT.removeprefix("one\n")),
        ({"sinceTime": "2024-01-01T01:00:04+01:00"}, "\nfive  with spaces\n"),
        ({"sinceTime": "2024-01-01T00:00:02Z", "tailLines": 2}, "\nfive  with spaces\n"),
        ({"sinceSeconds": 60}, ""),
        ({"stream": "Stderr"}, "two\n"),
        ({"stream": "Stdout", "tailLines": 2}, "\nfive  with spaces\n"),
        ({"timestamps": "true", "tailLines": 1}, "2024-01-01T00:00:05Z five  with spaces\n"),
        ({"timestamps": "true", "stream": "Stderr"}, "2024-01-01T00:00:02.5Z two\n"),
    ],
)
async def test_logs_show_what_is_asked_for(kubelet: Kubelet, query: dict[str, object], text: str) -> None:
    """Without the runtime's own columns, parts of lines joined; tail counts lines of the file, as a kubelet does."""
    kubelet.pods.path.write_text(LINES)
    assert await kubelet.logs(**query) == text


async def test_previous_log_is_another_file(kubelet: Kubelet) -> None:
    """What the container said before it was started again."""
    kubelet.pods.path.write_text(LINES)
    kubelet.pods.before.write_text("2024-01-01T00:00:00Z stderr F it died\n")
    assert await kubelet.logs(previous="true") == "it died\n"


async def test_log_is_followed_until_the_container_ends(kubelet: Kubelet) -> None:
    """Lines come as they are written, also behind a part of one and in the next file; the answer ends with it."""
    path = kubelet.pods.path
    path.write_text(LINES)
    async with (
        asyncio.timeout(SOON),
        kubelet.asking("/containerLogs/default/web/main?follow=true&tailLines=1") as answer,
    ):
        assert await answer.until(b"\n") == b"five  with spaces\n"
        with path.open("a") as file:
            file.write("2024-01-01T00:00:06Z stdout F half")
            file.flush()
            file.write(" a line\n2024-01-01T00:00:07Z stdout F seven\n")
        assert await answer.until(b"seven\n") == b"half a line\nseven\n"

        os.replace(path, path.with_suffix(".1"))
        path.write_text("2024-01-01T00:00:08Z stdout F eight\n")
        assert await answer.until(b"eight\n") == b"eight\n"

        with path.open("a") as file:
            file.write("2024-01-01T00:00:09Z stdout F last words\n")
        kubelet.pods.shell.ended.set_result(0)
        assert await answer.rest() == b"last words\n"


async def test_log_of_a_container_that_has_ended_is_not_waited_for(kubelet: Kubelet) -> None:
    """`kubectl logs -f` of a job that is done prints and ends."""
    kubelet.pods.path.write_text(LINES)
    kubelet.pods.shell.ended.set_result(1)
    assert await kubelet.logs(follow="true") == TEXT


async def test_long_log_is_given_whole(kubelet: Kubelet) -> None:
    """Lines across the borders of what is read at once; the tail is found from the end."""
    lines = [f"{'x' * (number % 300)} {number}" for number in range(20000)]
    kubelet.pods.path.write_text("".join(f"2024-01-01T00:00:00Z stdout F {line}\n" for line in lines))
    assert (await kubelet.logs()).splitlines() == lines
    for count in (1, 700, 19999):
        assert (await kubelet.logs(tailLines=count)).splitlines() == lines[-count:]

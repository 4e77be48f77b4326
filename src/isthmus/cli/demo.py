"""`meshctl demo`: the walk-through on three embedded clusters, with the walk-through's own commands."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from isthmus.cli.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from isthmus.embedded.fleet import Fleet
    from isthmus.model.ref import Kind

T = TypeVar("T")
Manifest = dict[str, Any]

INSTALL = "install --kubecontext mgmt"
REGISTER = (
    "cluster register --mgmt-context=mgmt --remote-context={name} --relay-server-address={address}:9900 "
    "enterprise {name} --cluster-domain cluster.local"
)
START_SECONDS = 75.0  # guards; each is many times what it takes
FEDERATION_SECONDS = 30.0
TRUST_SECONDS = 180.0  # three keys of 4,096 bits, and every pod replaced twice
LOG_LINES = 15  # of each program, shown when the demo fails
STEPS = {
    "PENDING": "its key is made there",
    "REQUESTED": "the management plane is to sign",
    "ISSUED": "istiod restarts, then gateways and workloads",
    "FINISHED": "all pods run with it",
}


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Check the result against the walk-through, say what was checked, and end.")
    ] = False,
) -> None:
    """Run the walk-through on this machine.

    Starts three small Kubernetes API servers (mgmt, cluster1, cluster2) with Istio's and bookinfo's objects, installs
    the management plane, registers both clusters and applies the walk-through's VirtualMesh. Then kubectl may look
    around until Ctrl-C ends and removes everything. Needs no container runtime.

    Exit code with --once: 1 if anything is not as the walk-through says.
    """
    from isthmus.cli import logs

    logs.configure()
    clock = Clock()
    with _ended_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP), running_fleet(clock) as fleet:
        try:
            set_up(fleet, clock)
            good = _check(fleet, clock) if once else True
        except Failure:
            _show_logs(fleet.directory)
            raise
        if not good:
            _show_logs(fleet.directory)
            raise typer.Exit(1)
        if not once:
            _invite(fleet)
            _wait()
            typer.echo("\nEnding the clusters")


class Clock:
    """Tells how long after the start something happened, and how long each phase took."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.phases: dict[str, float] = {}

    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        begun = self.now()
        yield
        self.phases[name] = self.now() - begun

    def summary(self) -> str:
        """All phases in a line."""
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.phases.items())


@contextmanager
def running_fleet(clock: Clock) -> Iterator[Fleet]:
    """The fleet, in a thread of its own, so that commands here may run as they always do."""
    from isthmus.embedded.fleet import Fleet

    loop, over = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:  # ends what is still under way before it closes
            runner.run(over.wait())

    thread = threading.Thread(target=run, name="fleet")
    thread.start()

    def do(work: Coroutine[Any, Any, T], seconds: float = START_SECONDS) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(seconds)

    fleet = Fleet(spares=True)
    entered = False
    try:
        with clock.phase("clusters"):
            do(fleet.__aenter__())
            entered = True
        yield fleet
    finally:
        try:
            if entered:
                do(fleet.__aexit__(None, None, None))
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()


def set_up(fleet: Fleet, clock: Clock) -> None:
    """Do what the walk-through does, with its own commands. Raises `Failure`."""
    from isthmus.cli.clusters import run

    typer.echo(f"{clock.now():5.1f} s  three clusters run: {', '.join(fleet.names)}; Istio and bookinfo on two of them")
    with _kubeconfig(fleet.kubeconfig):
        with clock.phase("install"):
            _meshctl(INSTALL, clock)
        address = run(_relay_host())
        for name in fleet.managed:
            with clock.phase(f"register {name}"):
                _meshctl(REGISTER.format(name=name, address=address), clock)
        with clock.phase("federate"):
            typer.echo(f"{clock.now():5.1f} s  applying examples/walkthrough/virtual-mesh.yaml")
            run(_federate(fleet.managed))
        with clock.phase("trust"):
            run(_trust(fleet.managed, clock))
    typer.echo(f"{clock.now():5.1f} s  federated, with one root of trust ({clock.summary()})")


@contextmanager
def _kubeconfig(path: Path) -> Iterator[None]:
    before = os.environ.get("KUBECONFIG")
    os.environ["KUBECONFIG"] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["KUBECONFIG"]
        else:
            os.environ["KUBECONFIG"] = before


def _meshctl(words: str, clock: Clock) -> None:
    """Run a command as if the user had typed it. Raises `Failure`."""
    from isthmus.cli.main import app

    typer.secho(f"{clock.now():5.1f} s  $ meshctl {words}", bold=True)
    code = typer.main.get_command(app).main(shlex.split(words), prog_name="meshctl", standalone_mode=False)
    if code:
        raise Failure(f"`meshctl {words}` ended with {code}")


async def _relay_host() -> str:
    """What the walk-through's `kubectl get svc -o jsonpath` prints."""
    from isthmus.cli.clusters import connect
    from isthmus.model.kinds import SERVICE

    async with connect(None, "mgmt") as mgmt:
        service = await mgmt.get(SERVICE, "gloo-mesh", "enterprise-networking")
    return str(service["status"]["loadBalancer"]["ingress"][0]["ip"])


async def _federate(names: tuple[str, ...]) -> None:
    """Apply the VirtualMesh as it is and wait until every cluster knows the others' services."""
    from isthmus.cli.applying import kind_of
    from isthmus.cli.clusters import connect
    from isthmus.cli.files import read_documents
    from isthmus.embedded.fleet import walkthrough

    async with connect(None, "mgmt") as mgmt:
        for document in read_documents([str(walkthrough("virtual-mesh.yaml"))]):
            await mgmt.apply(kind_of(document.manifest), document.manifest, manager="kubectl")
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            for other in names:
                if other != name:
                    tasks.create_task(_knows(name, other))
        tasks.create_task(_statuses_tell(len(names)))


async def _knows(name: str, other: str) -> None:
    """Return when cluster *name* has an entry for each of the walk-through's services on cluster *other*."""
    from isthmus.cli.demo_checks import expected_rows
    from isthmus.istio.kinds import SERVICE_ENTRY

    missing = {row.name.replace("cluster2", other) for row in expected_rows()}

    await _until(
        name,
        SERVICE_ENTRY,
        lambda entry: missing.discard(entry["metadata"]["name"]),
        lambda: f"{name} has no ServiceEntry {', '.join(sorted(missing))}" if missing else "",
    )


async def _statuses_tell(meshes: int) -> None:
    """Return when the statuses on the management cluster show what was done: they are written beside the entries."""
    from isthmus.api.discovery import Mesh

    applied: set[str] = set()

    def note(mesh: Manifest) -> None:
        if (mesh.get("status") or {}).get("appliedEastWestIngressGateways"):
            applied.add(mesh["metadata"]["name"])

    await _until(
        "mgmt",
        Mesh.KIND,
        note,
        lambda: f"{len(applied)} of {meshes} meshes have a gateway in their status" if len(applied) < meshes else "",
    )


async def _trust(names: tuple[str, ...], clock: Clock) -> None:
    """Tell how far the certificate of each cluster's mesh is, and return when all pods run with theirs."""
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(_trusts(name, clock))


async def _trusts(name: str, clock: Clock) -> None:
    from isthmus.api.issued_certificate import IssuedCertificate

    state = ""

    def note(certificate: Manifest) -> None:
        nonlocal state
        status = certificate.get("status") or {}
        current = status.get("observedGeneration") == certificate["metadata"]["generation"]
        found = status.get("state", "PENDING") if current else "PENDING"
        if found != state:
            state = found
            typer.echo(f"{clock.now():5.1f} s  {name}'s certificate is {state}: {STEPS.get(state, 'see its status')}")

    await _until(
        name,
        IssuedCertificate.KIND,
        note,
        lambda: "" if state == "FINISHED" else f"{name}'s certificate is {state or 'not wanted yet'}",
        TRUST_SECONDS,
    )


async def _until(
    name: str,
    kind: Kind,
    note: Callable[[Manifest], None],
    missing: Callable[[], str],
    seconds: float = FEDERATION_SECONDS,
) -> None:
    """Show *note* every object of *kind* on cluster *name* until *missing* has nothing to say. Raises `Failure`."""
    from contextlib import aclosing

    from isthmus.cli.clusters import connect
    from isthmus.kube import Changed, Replaced

    try:
        async with (
            asyncio.timeout(seconds),
            connect(None, name) as cluster,
            aclosing(cluster.watch(kind)) as events,
        ):
            async for event in events:
                if isinstance(event, Replaced):
                    for item in event.items:
                        note(item)
                elif isinstance(event, Changed):
                    note(event.item)
                if not missing():
                    return
    except TimeoutError as error:
        raise Failure(f"{missing()} after {seconds:.0f} s") from error


def _check(fleet: Fleet, clock: Clock) -> bool:
    from isthmus.cli.clusters import run
    from isthmus.cli.demo_checks import check_walkthrough

    with _kubeconfig(fleet.kubeconfig):
        results = run(check_walkthrough(fleet.managed))
    for name, problem in results:
        good = not problem
        typer.secho(f"{clock.now():5.1f} s  {'✔' if good else '✘'} ", fg="green" if good else "red", nl=False)
        typer.echo(f"{name}{'' if good else ': ' + problem}")
    good = all(not problem for _, problem in results)
    typer.echo(f"{clock.now():5.1f} s  {'all as the walk-through says' if good else 'not as the walk-through says'}")
    return good


def _invite(fleet: Fleet) -> None:
    from isthmus.embedded.fleet import walkthrough

    program = "meshctl" if shutil.which("meshctl") else os.path.relpath(sys.argv[0])
    kubectl = f"kubectl --kubeconfig {fleet.kubeconfig}"
    typer.echo(
        f"""
The clusters run until Ctrl-C. Their kubeconfig, with the contexts {", ".join(fleet.names)}:

  export KUBECONFIG={fleet.kubeconfig}

What cluster1 knows of cluster2's services, and the entries that let cluster2's calls in:

  {kubectl} --context cluster1 get serviceentries -A

Then try:

  {program} describe virtualmesh --kubeconfig {fleet.kubeconfig}
  {program} check --kubeconfig {fleet.kubeconfig}
  {kubectl} --context cluster2 expose deployment reviews-v3 --name reviews-next --port 9080
  {kubectl} --context cluster1 get serviceentries -A | grep reviews-next

The virtual mesh refuses every call until a policy allows it. One that allows some, and what comes of it:

  {kubectl} --context mgmt apply -f {walkthrough("access-policy.yaml")}
  {kubectl} --context cluster2 get authorizationpolicies -A

And what happens:

  tail -f {fleet.directory}/*/logs/*.log
"""
    )


def _wait() -> None:
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()


def _show_logs(directory: Path) -> None:
    for path in sorted(directory.glob("*/logs/*.log")):
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
        typer.secho(f"--- the last lines of {path.relative_to(directory)}", bold=True, err=True)
        for line in lines:
            typer.echo(line, err=True)


@contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """Inside, the first of these signals raises KeyboardInterrupt; later ones don't disturb the cleaning up."""
    seen = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if not seen:
            seen = True
            raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

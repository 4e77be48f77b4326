"""A running lab as a test sees it: the commands that a person would type, and what they print."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from isthmus.lab.binaries import find
from isthmus.lab.box import Box

Json = dict[str, Any]
Row = tuple[str, ...]

ROOT = Path(__file__).parents[2]
WALKTHROUGH = ROOT / "examples" / "walkthrough"
COMMAND_SECONDS = 420.0
REQUEST_SECONDS = 10.0  # that a request may take where none may fail: a lost packet or two cost 1 to 3 s
PATIENCE = float(os.environ.get("ISTHMUS_LAB_PATIENCE", "5"))
"""How many times longer than promised something may take before a test fails: machines are shared."""


class Lab:
    """The lab whose files are in *directory*."""

    measured: ClassVar[list[str]] = []
    """What tests measured, on whichever lab: printed at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"

    @cached_property
    def environment(self) -> dict[str, str]:
        """Variables with which kubectl, istioctl, helm and meshctl reach the lab."""
        own = f"{find().search_path}:{Path(sys.executable).parent}"
        lab = {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(Box(self.directory).kubectl_cache),
            "ISTHMUS_LAB_DIRECTORY": str(self.directory),
        }
        return {**os.environ, **lab, "PATH": f"{own}:{os.environ['PATH']}"}

    def run(self, *argv: str, stdin: str = "", timeout: float = COMMAND_SECONDS) -> str:
        """What the command prints; fails with all that it said if it does not end well."""
        done = self.attempt(*argv, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"$ {shlex.join(argv)}\n{done.stdout}{done.stderr}exit code {done.returncode}"
        return done.stdout

    def attempt(
        self, *argv: str, stdin: str = "", timeout: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """How the command ends, well or not."""
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout, env=self.environment, check=False
        )

    def shell(self, script: str) -> str:
        """Run *script* as the walk-through's reader does, in its folder; the first failing command ends it."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=WALKTHROUGH,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=self.environment,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}exit code {done.returncode}"
        return done.stdout

    def kubectl(self, cluster: str, *arguments: str, stdin: str = "") -> str:
        """What kubectl prints."""
        return self.run("kubectl", "--context", cluster, *arguments, stdin=stdin)

    def apply(self, cluster: str, manifest: Json) -> None:
        """`kubectl apply` of one object."""
        self.kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(manifest))

    def objects(self, cluster: str, *arguments: str) -> list[Json]:
        """The objects that `kubectl get` *arguments* finds."""
        found = json.loads(self.kubectl(cluster, "get", *arguments, "-o", "json"))
        items: list[Json] = found.get("items", [found])
        return items

    def has(self, cluster: str, *arguments: str) -> bool:
        """Whether `kubectl get` *arguments* finds something."""
        done = self.attempt("kubectl", "--context", cluster, "get", *arguments, "-o", "name", "--ignore-not-found")
        return done.returncode == 0 and bool(done.stdout.strip())

    def table(self, cluster: str, *arguments: str) -> list[Row]:
        """The rows that `kubectl get` *arguments* prints, without the last column, the age."""
        lines = self.kubectl(cluster, "get", *arguments, "--no-headers").splitlines()
        return [tuple(line.split()[:-1]) for line in lines]

    def pods(self, cluster: str, selector: str, *, namespace: str = "default") -> set[str]:
        """Names of the pods that are ready and do not end."""
        return {
            item["metadata"]["name"]
            for item in self.objects(cluster, "pods", "-n", namespace, "-l", selector)
            if "deletionTimestamp" not in item["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", ()))
        }

    def call(self, cluster: str, url: str, *options: str, workload: str = "client") -> list[Json]:
        """What requests from a pod on *cluster* come back with; isthmus.lab.calls tells the options."""
        # Only the client's image has the command by name; every pod of the lab has this interpreter.
        command = ("call",) if workload == "client" else (sys.executable, "-m", "isthmus.lab.client", "call")
        printed = self.kubectl(cluster, "exec", f"deploy/{workload}", "--", *command, url, *options)
        return [line for line in map(json.loads, printed.splitlines()) if "summary" not in line]

    def tally(self, cluster: str, url: str, *options: str) -> Json:
        """The summary of many requests from the client's pod on *cluster*."""
        printed = self.kubectl(cluster, "exec", "deploy/client", "--", "call", url, *options, "--summary")
        summary: Json = json.loads(printed.splitlines()[-1])["summary"]
        return summary

    @contextlib.contextmanager
    def calling(
        self, cluster: str, url: str, *, rate: int = 20, seconds: int = 90, timeout: float = 2.0
    ) -> Iterator[Calling]:
        """Requests from the client's pod on *cluster* that go on beside the test, one after the other."""
        argv = ["kubectl", "--context", cluster, "exec", "deploy/client", "--", "call", url]
        argv += ["--rate", str(rate), "--for", str(seconds), "--timeout", str(timeout)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=self.environment) as process:
            assert process.stdout is not None
            calling = Calling(process.stdout)
            try:
                yield calling
            finally:
                process.terminate()
                calling.join()

    def measure(self, what: str, seconds: float, promised: float) -> None:
        """Note how long something took; fails when it is much more than *promised*."""
        self.measured.append(f"{what}: {seconds:.2f} s (promised: {promised:g} s)")
        assert seconds <= promised * PATIENCE, self.measured[-1]


class Calling:
    """Requests that go on; answers are taken in the order in which they came."""

    def __init__(self, printed: Iterator[str]) -> None:
        self.seen: list[Json] = []
        """What was taken so far."""
        self._lines: queue.Queue[Json | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(printed,), daemon=True)
        self._reader.start()

    def _read(self, printed: Iterator[str]) -> None:
        with contextlib.suppress(ValueError):  # the last line, cut off when the command is ended
            for line in printed:
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def until(self, what: str, holds: Callable[[Json], bool], *, after: float = 0.0, within: float = 30.0) -> float:
        """How many seconds *after* that time (since the epoch) the first answer came for which it *holds*."""
        end = time.monotonic() + within
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no answer shows {what}; the last were {self.seen[-3:]}"
            if "summary" in line:
                continue
            self.seen.append(line)
            if holds(line):
                return max(0.0, float(line["at"]) + float(line["ms"]) / 1000 - after)

    def join(self) -> None:
        self._reader.join(10)


def commands(heading: str) -> list[str]:
    """The shell commands below a heading of the walk-through, block by block, without OpenShift's `oc`."""
    text = (WALKTHROUGH / "README.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    section = next(section for section in sections if section.partition("\n")[0].endswith(heading))
    blocks = re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    found = [block for block in blocks if not re.search(r"^\s*oc ", block, flags=re.MULTILINE)]
    assert found, f"the walk-through has no commands below {heading!r}"
    return found


def eventually(what: str, check: Callable[[], Any], *, within: float = 60.0) -> Any:
    """What *check* returns once that is true; fails with *what* at the deadline."""
    end = time.monotonic() + within
    while True:
        if found := check():
            return found
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.1)

"""A machine without namespaces, which root alone may make: containers are plain processes of this one.

It keeps the promises of `isthmus.lab.runtime` on which a kubelet's order of things depends. That containers are kept
apart is tested on the lab.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from isthmus.lab.images import Image
from isthmus.lab.runtime import ContainerSpec, StartFailed


@dataclass
class PlainSandbox:
    """A pod's place, with nothing in it."""

    name: str
    address: IPv4Address | None


class PlainProcess:
    """A container that is only a process."""

    def __init__(self, child: asyncio.subprocess.Process, env: Mapping[str, str]) -> None:
        self.pid = child.pid
        self._child = child
        self._env = env

    async def wait(self) -> int:
        code = await self._child.wait()
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        if self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def exec(
        self, argv: Sequence[str], *, stdin: int | None, stdout: int | None, stderr: int | None
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(*argv, stdin=stdin, stdout=stdout, stderr=stderr, env=self._env)


class PlainMachine:
    """Stands in for `Runtime`."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, PlainSandbox] = {}
        self.running: set[PlainProcess] = set()
        self.emptied = asyncio.Event()
        """Set when the last sandbox is removed."""
        self.failures: list[Exception] = []
        """What the next sandboxes fail with."""

    async def create_sandbox(
        self,
        name: str,
        *,
        machine: str,
        address: IPv4Address | None,
        hostname: str,
        sysctls: Mapping[str, str] | None = None,
    ) -> PlainSandbox:
        if self.failures:
            raise self.failures.pop(0)
        sandbox = self.sandboxes[name] = PlainSandbox(name, address)
        return sandbox

    async def remove_sandbox(self, sandbox: PlainSandbox) -> None:
        self.sandboxes.pop(sandbox.name, None)
        if not self.sandboxes:
            self.emptied.set()

    async def start(self, sandbox: PlainSandbox, spec: ContainerSpec) -> PlainProcess:
        # Where a container sees its mounts, its script here learns from variables.
        env = {**spec.env, **{_variable(mount.target): str(mount.source) for mount in spec.mounts}}
        with spec.log.open("ab") as log:
            try:
                child = await asyncio.create_subprocess_exec(
                    *spec.argv, stdout=log, stderr=log, env=env, start_new_session=True
                )
            except OSError as error:
                raise StartFailed(f"container {spec.name}: {error}") from error
        process = PlainProcess(child, env)
        self.running.add(process)
        asyncio.ensure_future(process.wait()).add_done_callback(lambda _: self.running.discard(process))
        return process

    def kill_all(self) -> None:
        """End what a failed test left."""
        for process in tuple(self.running):
            process.signal(signal.SIGKILL)


class ShellImage:
    """Knows one image, ``shell``: it runs the script that is its argument."""

    names = ("shell",)

    def of(self, reference: str) -> Image | None:
        return Image(("/bin/sh", "-c")) if reference == "shell" else None


def _variable(target: str) -> str:
    """``/dev/termination-log`` is ``DEV_TERMINATION_LOG``."""
    return target.strip("/").replace("/", "_").replace("-", "_").replace(".", "_").upper()

"""One embedded cluster as a process of its own: ``python -m isthmus.embedded --name cluster1 --storage FILE``.

Prints one line of JSON (``url``, ``kubeconfig``) when it is ready, and runs until SIGTERM or SIGINT. With the same
storage, port and credentials it comes back after a kill as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from isthmus.embedded.cluster import EmbeddedCluster
from isthmus.embedded.store import HISTORY


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m isthmus.embedded", description="An embedded Kubernetes API server."
    )
    parser.add_argument("--name", required=True, help="name of the cluster and of its kubeconfig context")
    parser.add_argument("--credentials", required=True, type=Path, help="folder of certificates, token and kubeconfig")
    parser.add_argument(
        "--storage", type=Path, help="SQLite file that keeps the objects; without it they are in memory"
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--history", type=int, default=HISTORY, help="events of one kind that a watch may resume from")
    given = parser.parse_args(arguments)
    asyncio.run(_serve(given))


async def _serve(given: argparse.Namespace) -> None:
    cluster = EmbeddedCluster(
        given.name,
        storage=given.storage,
        port=given.port,
        host=given.host,
        credentials=given.credentials,
        history=given.history,
    )
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with cluster:
        path = given.credentials / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(cluster.kubeconfig(), indent=1))  # JSON is YAML
        sys.stdout.write(json.dumps({"url": cluster.url, "kubeconfig": str(path)}) + "\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    main()

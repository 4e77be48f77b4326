"""A program for containers: says what it sees, and does what its arguments say.

Arguments: ``ready`` (``/ready`` answers 200), ``unready`` (503 until the file named by $READY_FILE exists), ``deaf``
(ignores SIGTERM), ``exit=CODE`` (ends at once).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


def main() -> None:
    words = sys.argv[1:]
    print(json.dumps({"arguments": sys.argv, "environment": dict(os.environ)}), flush=True)  # noqa: T201
    for word in words:
        if word.startswith("exit="):
            sys.exit(int(word.removeprefix("exit=")))
    if "deaf" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ready = "unready" not in words or Path(os.environ["READY_FILE"]).exists()
            self.send_response(200 if ready and self.path == "/ready" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((os.environ["ISTHMUS_BIND_ADDRESS"], 9091), Handler) as server:
        server.serve_forever()


def wait() -> None:
    """Say that it runs, and do nothing."""
    print("runs", flush=True)  # noqa: T201
    signal.pause()

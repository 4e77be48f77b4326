"""Run one of bookinfo's services: `python -m isthmus.lab.bookinfo reviews v3`."""

from __future__ import annotations

import argparse
import socket
import sys

from isthmus.lab.bookinfo.directing import directed
from isthmus.lab.bookinfo.services import VERSIONS, service
from isthmus.lab.bookinfo.serving import PORT, Identity, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="bookinfo", description="Run one of bookinfo's services.")
    parser.add_argument("service", choices=VERSIONS)
    parser.add_argument("version")
    parser.add_argument("--port", type=int, default=PORT, help=f"to listen on ({PORT}); 0 takes a free one")
    parser.add_argument(
        "--host", default="::" if socket.has_dualstack_ipv6() else "0.0.0.0", help="all addresses if left out"
    )
    options = parser.parse_args()
    if options.version not in VERSIONS[options.service]:
        parser.error(f"{options.service} has no version {options.version}, only {', '.join(VERSIONS[options.service])}")
    identity = Identity.of_environment(options.service, options.version)
    return run(directed(service(options.service, options.version)), identity, host=options.host, port=options.port)


if __name__ == "__main__":
    sys.exit(main())

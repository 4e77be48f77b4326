"""The command line of `isthmus-server`. Options as users know them. Source: reference, relay."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

DESCRIPTION = "The management plane: takes what agents report, gives every cluster what it shall have."


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """What the command line takes."""
    found = argparse.ArgumentParser("isthmus-server", description=DESCRIPTION, allow_abbrev=False)
    found.add_argument(
        "--namespace",
        default=environment.get("POD_NAMESPACE") or "gloo-mesh",
        help="namespace of the installation (default: $POD_NAMESPACE, or %(default)s)",
    )
    found.add_argument(
        "--bind-address",
        default=environment.get("ISTHMUS_BIND_ADDRESS", ""),
        help="address to listen on (default: $ISTHMUS_BIND_ADDRESS, or all)",
    )
    found.add_argument("--grpc-port", type=int, default=9900, help="port for agents (default: %(default)s)")
    found.add_argument("--http-port", type=int, default=8080, help="reserved for the dashboard (default: %(default)s)")
    found.add_argument(
        "--metrics-port", type=int, default=9091, help="port for health and metrics, 0 for none (default: %(default)s)"
    )
    found.add_argument("--relay-insecure", action="store_true", help="listen without TLS; every agent is believed")
    found.add_argument("--relay-server-secret-name", default="relay-server-tls-secret", metavar="NAME")
    found.add_argument("--relay-signing-secret-name", default="relay-tls-signing-secret", metavar="NAME")
    found.add_argument("--relay-identity-token-secret-name", default="relay-identity-token-secret", metavar="NAME")
    found.add_argument("--relay-identity-token-secret-key", default="token", metavar="KEY")
    found.add_argument("--verbose", action="store_true", help="log debug messages")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server until SIGTERM."""
    options = parser(os.environ).parse_args(arguments)

    from isthmus.kube import KubeClient, KubeError
    from isthmus.program.lifecycle import run_program
    from isthmus.program.logs import configure_logs
    from isthmus.server.collector import tame_garbage_collector
    from isthmus.server.run import Options, run_server
    from isthmus.server.secrets import SecretNames

    configure_logs(options.verbose)
    tame_garbage_collector()

    async def serve() -> None:
        async with KubeClient.from_environment() as kube:
            await run_server(
                kube,
                Options(
                    namespace=options.namespace,
                    host=options.bind_address,
                    grpc_port=options.grpc_port,
                    metrics_port=options.metrics_port,
                    insecure=options.relay_insecure,
                    secrets=SecretNames(
                        server=options.relay_server_secret_name,
                        signing=options.relay_signing_secret_name,
                        token=options.relay_identity_token_secret_name,
                        token_key=options.relay_identity_token_secret_key,
                    ),
                ),
            )

    sys.exit(run_program(serve, expected=(KubeError, OSError)))


if __name__ == "__main__":
    main()

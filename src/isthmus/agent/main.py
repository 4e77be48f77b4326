"""The command line of `isthmus-agent`. Options as users know them. Source: reference, relay, process flags."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

DESCRIPTION = "The agent of one cluster: reports what it has, and writes what the management plane wants it to have."


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """What the command line takes."""
    namespace = environment.get("POD_NAMESPACE") or "gloo-mesh"
    found = argparse.ArgumentParser("isthmus-agent", description=DESCRIPTION, allow_abbrev=False)
    found.add_argument("--cluster", required=True, help="the name under which the cluster is registered")
    found.add_argument("--relay-address", required=True, help="host:port of the management plane")
    found.add_argument(
        "--relay-authority", default="", help="name in the server's certificate (default: enterprise-networking.<ns>)"
    )
    found.add_argument("--relay-insecure", action="store_true", help="connect without TLS")
    found.add_argument(
        "--namespace", default=namespace, help="namespace of the agent (default: $POD_NAMESPACE, or %(default)s)"
    )
    for name, secret in (
        ("client-cert", "relay-client-tls-secret"),
        ("root-cert", "relay-root-tls-secret"),
        ("identity-token", "relay-identity-token-secret"),
    ):
        found.add_argument(f"--relay-{name}-secret-name", default=secret, metavar="NAME")
        found.add_argument(f"--relay-{name}-secret-namespace", default="", metavar="NAMESPACE")
    found.add_argument("--relay-identity-token-secret-key", default="token", metavar="KEY")
    found.add_argument(
        "--bind-address",
        default=environment.get("ISTHMUS_BIND_ADDRESS", ""),
        help="address to listen on (default: $ISTHMUS_BIND_ADDRESS, or all)",
    )
    found.add_argument(
        "--metrics-port", type=int, default=9091, help="port for health and metrics, 0 for none (default: %(default)s)"
    )
    found.add_argument("--http-port", type=int, default=9988, help="reserved (default: %(default)s)")
    found.add_argument(
        "--grpc-port", type=int, default=9977, help="reserved for the proxies' metrics and logs (default: %(default)s)"
    )
    found.add_argument(
        "--verify-workloads",
        choices=("true", "false"),
        default=environment.get("ISTHMUS_VERIFY_WORKLOADS", "true"),
        help="connect to the mesh's pods to see which certificates they present (default: %(default)s)",
    )
    found.add_argument("--verbose", action="store_true", help="log debug messages")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the agent until SIGTERM."""
    options = parser(os.environ).parse_args(arguments)

    from isthmus.agent.credentials import SecretAt, SecretNames
    from isthmus.agent.run import Options, run_agent
    from isthmus.kube import KubeClient, KubeError
    from isthmus.program.lifecycle import BadOption, run_program
    from isthmus.program.logs import configure_logs

    configure_logs(options.verbose)

    def secret(name: str) -> SecretAt:
        where = getattr(options, f"relay_{name}_secret_namespace") or options.namespace
        return SecretAt(where, getattr(options, f"relay_{name}_secret_name"))

    async def serve() -> None:
        async with KubeClient.from_environment() as kube:
            await run_agent(
                kube,
                Options(
                    cluster=options.cluster,
                    namespace=options.namespace,
                    relay_address=options.relay_address,
                    relay_authority=options.relay_authority or f"enterprise-networking.{options.namespace}",
                    secrets=None
                    if options.relay_insecure
                    else SecretNames(
                        client=secret("client_cert"),
                        root=secret("root_cert"),
                        token=secret("identity_token"),
                        token_key=options.relay_identity_token_secret_key,
                    ),
                    host=options.bind_address,
                    metrics_port=options.metrics_port,
                    verify_workloads=options.verify_workloads == "true",
                ),
            )

    sys.exit(run_program(serve, expected=(KubeError, OSError, BadOption)))


if __name__ == "__main__":
    main()

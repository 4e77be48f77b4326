"""The command line of the agent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from isthmus.agent.main import parser
from isthmus.embedded import EmbeddedCluster
from isthmus.install import AgentValues, agent, read_values


def container_arguments(*settings: str) -> list[str]:
    values = read_values(AgentValues, [], ["relay.cluster=cluster1", "relay.serverAddress=192.0.2.1:9900", *settings])
    assert isinstance(values, AgentValues)
    (deployment,) = [item for item in agent(values) if item["kind"] == "Deployment"]
    return list(deployment["spec"]["template"]["spec"]["containers"][0]["args"])


def test_the_installed_arguments_are_understood() -> None:
    options = parser({}).parse_args(container_arguments())

    assert options.relay_client_cert_secret_name == "relay-client-tls-secret"
    assert options.relay_identity_token_secret_key == "token"
    assert options.metrics_port == 9091


def test_namespace_and_address_come_from_the_environment() -> None:
    options = parser({"POD_NAMESPACE": "mesh", "ISTHMUS_BIND_ADDRESS": "127.9.9.9"}).parse_args(container_arguments())

    assert (options.namespace, options.bind_address) == ("mesh", "127.9.9.9")


def test_pods_are_connected_to_unless_somebody_does_not_want_it() -> None:
    off = "enterpriseAgent.verifyWorkloads=false"

    assert parser({}).parse_args(container_arguments()).verify_workloads == "true"
    assert parser({"ISTHMUS_VERIFY_WORKLOADS": "false"}).parse_args(container_arguments()).verify_workloads == "false"
    assert parser({}).parse_args(container_arguments(off)).verify_workloads == "false"


async def test_a_nonsensical_relay_address_is_said_and_ends_the_program(
    bare_cluster: EmbeddedCluster, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(bare_cluster.kubeconfig()))

    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "isthmus.agent.main",
        "--cluster=a",
        "--relay-address=http://x",
        "--metrics-port=0",
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(program.communicate(), 60)

    assert program.returncode == 1
    (line,) = said.splitlines()
    assert "--relay-address: 'http://x'" in json.loads(line)["error"]

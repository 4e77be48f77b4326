"""The command line of the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from isthmus.install import ManagementPlaneValues, management_plane
from isthmus.server.main import parser


def test_the_installed_arguments_are_understood() -> None:
    (deployment,) = [item for item in management_plane(ManagementPlaneValues()) if item["kind"] == "Deployment"]
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]

    options = parser({}).parse_args(arguments)

    assert options.grpc_port == 9900
    assert options.relay_server_secret_name == "relay-server-tls-secret"
    assert options.relay_identity_token_secret_key == "token"


def test_without_a_cluster_the_program_says_so_and_ends(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "isthmus.server.main"],
        env={**os.environ, "KUBECONFIG": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert json.loads(line)["event"] == "cannot go on"

"""The frame of all commands: exit codes, errors, plug-ins, completion, and what a start costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from isthmus import __version__
from tests.unit.cli.meshctl import meshctl

MESHCTL = Path(sys.executable).with_name("meshctl")


def test_version_for_people_and_programs() -> None:
    assert meshctl("version").stdout == f"meshctl {__version__}\n"
    assert meshctl("version", "-o", "json").stdout == '{\n  "client": {\n    "version": "' + __version__ + '"\n  }\n}\n'


def test_what_is_not_understood_is_exit_code_2() -> None:
    unknown, misspelt = meshctl("frobnicate"), meshctl("clsuter", "list")

    assert unknown.exit_code == 2
    assert "No such command 'frobnicate'" in unknown.stderr
    assert misspelt.exit_code == 2
    assert "Did you mean 'cluster'?" in misspelt.stderr


def test_an_error_names_the_next_step_on_stderr_and_is_exit_code_1(tmp_path: Path) -> None:
    result = meshctl("get", "meshes", kubeconfig=tmp_path / "none")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: no kubeconfig at {tmp_path / 'none'}\ntry:   ")


def plugin(folder: Path, name: str) -> None:
    """A plug-in that says its arguments."""
    path = folder / f"meshctl-{name}"
    path.write_text('#!/bin/sh\necho "plug-in: $*"\nexit 7\n')
    path.chmod(0o755)


def test_an_unknown_word_runs_the_plug_in_of_that_name(tmp_path: Path) -> None:
    plugin(tmp_path, "wasm")

    ran = subprocess.run(
        [MESHCTL, "wasm", "push", "--tag", "v1"], env={"PATH": f"{tmp_path}:/bin"}, capture_output=True, text=True
    )

    assert (ran.stdout, ran.returncode) == ("plug-in: push --tag v1\n", 7)


def test_built_in_commands_win_over_plug_ins(tmp_path: Path) -> None:
    plugin(tmp_path, "version")

    ran = subprocess.run([MESHCTL, "version"], env={"PATH": f"{tmp_path}:/bin"}, capture_output=True, text=True)

    assert (ran.stdout, ran.returncode) == (f"meshctl {__version__}\n", 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_each_shell_asks_meshctl(shell: str) -> None:
    result = meshctl("completion", shell)

    assert result.exit_code == 0
    assert f"_MESHCTL_COMPLETE=complete_{shell}" in result.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("meshctl cl", ["cluster"]),
        ("meshctl get virtual", ["virtualdestinations", "virtualgateways", "virtualhosts", "virtualmeshes"]),
        ("meshctl get meshes --kubecontext ", ["cluster1", "mgmt"]),
    ],
)
def test_commands_kinds_and_contexts_are_completed(words: str, found: list[str], tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("contexts: [{name: mgmt, context: {cluster: a}}, {name: cluster1, context: {cluster: b}}]")
    position = str(len(words.split(" ")) - 1)
    asked = {"_MESHCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}

    ran = subprocess.run(
        [MESHCTL], env={"PATH": "/bin", "KUBECONFIG": str(kubeconfig), **asked}, capture_output=True, text=True
    )

    assert ran.stdout.split() == found


def test_a_start_loads_no_more_than_the_command_needs() -> None:
    """What answers at once (`version`, completion, help) must not wait for Kubernetes clients and engines."""
    program = (
        "import sys; from isthmus.cli.main import app; app(['version'], standalone_mode=False);"
        "print(*(name for name in sys.modules if name.split('.')[0] in "
        "('structlog', 'rich', 'yaml', 'httpx2', 'cryptography', 'msgspec', 'starlette')))"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout.splitlines()[1:] == [""]

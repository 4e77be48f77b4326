"""Volumes hold what the pod says, and change all at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.lab.kubelet.fields import Unresolved
from isthmus.lab.kubelet.volume_files import make_folder, write_files
from isthmus.lab.kubelet.volumes import File, TokenRequest, files, kind_of, nested_mounts, references, token_requests
from tests.unit.lab.kubelet.pods import Held, container, pod, setting

HELD = Held(ConfigMap_conf={"a.yaml": "A", "b.yaml": "B"}, Secret_keys={"tls.key": "K"})


def texts(volume: dict[str, Any], sources: Held = HELD) -> dict[str, str]:
    found = files({"name": "v", **volume}, setting(), sources, lambda request: f"token for {request.audience}")
    return {path: file.content.decode() for path, file in found.items()}


def test_every_key_is_a_file() -> None:
    assert texts({"configMap": {"name": "conf"}}) == {"a.yaml": "A", "b.yaml": "B"}
    assert texts({"secret": {"secretName": "keys"}}) == {"tls.key": "K"}


def test_items_choose_and_rename() -> None:
    items = [{"key": "b.yaml", "path": "deep/renamed"}]

    assert texts({"configMap": {"name": "conf", "items": items}}) == {"deep/renamed": "B"}


def test_what_is_missing_is_named_unless_optional() -> None:
    with pytest.raises(Unresolved, match='configmap "gone" not found'):
        texts({"configMap": {"name": "gone"}})
    with pytest.raises(Unresolved, match=r"non-existent key: c\.yaml"):
        texts({"configMap": {"name": "conf", "items": [{"key": "c.yaml", "path": "c"}]}})

    assert texts({"configMap": {"name": "gone", "optional": True}}) == {}
    assert texts({"secret": {"secretName": "gone", "optional": True, "items": [{"key": "k", "path": "p"}]}}) == {}


def test_a_projected_volume_joins_its_sources() -> None:
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": "istio-ca", "expirationSeconds": 600}},
        {"configMap": {"name": "conf", "items": [{"key": "a.yaml", "path": "ca.crt"}]}},
        {"secret": {"name": "keys"}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]

    assert texts({"projected": {"sources": sources}}) == {
        "token": "token for istio-ca",
        "ca.crt": "A",
        "tls.key": "K",
        "namespace": "shop",
    }


def test_labels_and_annotations_are_quoted() -> None:
    """As pilot-agent and others read them: one pair a line, the value as a Go string."""
    items = [{"path": kind, "fieldRef": {"fieldPath": f"metadata.{kind}"}} for kind in ("labels", "annotations")]

    assert texts({"downwardAPI": {"items": items}}) == {
        "labels": 'app="web"\ntier="front"',
        "annotations": 'note="a \\"quoted\\"\\nline"',
    }


def test_modes() -> None:
    volume = {
        "name": "v",
        "secret": {"secretName": "keys", "defaultMode": 0o400, "items": [{"key": "tls.key", "path": "k"}]},
    }
    with_own = {
        "name": "v",
        "secret": {"secretName": "keys", "items": [{"key": "tls.key", "path": "k", "mode": 0o600}]},
    }

    assert files(volume, setting(), HELD, str)["k"].mode == 0o400
    assert files(with_own, setting(), HELD, str)["k"].mode == 0o600


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b"])
def test_no_file_leaves_its_volume(path: str) -> None:
    with pytest.raises(Unresolved, match="no path within it"):
        texts({"configMap": {"name": "conf", "items": [{"key": "a.yaml", "path": path}]}})


def test_a_kind_of_volume_that_the_lab_lacks_is_named() -> None:
    with pytest.raises(Unresolved, match="nfs"):
        kind_of({"name": "v", "nfs": {"server": "s"}})


def test_what_a_pod_refers_to() -> None:
    of = pod(
        container(
            envFrom=[{"secretRef": {"name": "from"}}],
            env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}}, {"name": "Y"}],
        ),
        volumes=[
            {"name": "a", "configMap": {"name": "conf"}},
            {"name": "b", "secret": {"secretName": "keys"}},
            {
                "name": "c",
                "projected": {
                    "sources": [
                        {"secret": {"name": "inner"}},
                        {"serviceAccountToken": {"path": "t", "audience": "x"}},
                    ]
                },
            },
            {"name": "d", "emptyDir": {}},
        ],
    )

    assert references(of) == {
        ("Secret", "from"),
        ("ConfigMap", "one"),
        ("ConfigMap", "conf"),
        ("Secret", "keys"),
        ("Secret", "inner"),
    }
    assert token_requests(of) == {TokenRequest("x", 3600)}


def test_places_for_volumes_within_volumes() -> None:
    """Istio's proxy mounts one into another that is read-only."""
    mounts = [
        {"name": "outer", "mountPath": "/run/secrets/istio"},
        {"name": "inner", "mountPath": "/run/secrets/istio/crl"},
        {"name": "other", "mountPath": "/run/secrets/istiod"},
    ]
    of = pod(container(volumeMounts=mounts))

    assert nested_mounts(of, "outer") == ("crl",)
    assert nested_mounts(of, "inner") == ()


def held_in(folder: Path) -> dict[str, bytes]:
    """What a program sees that reads every file of a volume."""
    found = {}
    for top in sorted(path for path in folder.iterdir() if not path.name.startswith("..")):
        for path in (top, *top.rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


names = st.text("ab", min_size=1, max_size=2)
paths = st.one_of(names, st.tuples(st.just("deep"), names).map("/".join))


@given(st.lists(st.dictionaries(paths, st.binary(max_size=4), max_size=4), min_size=1, max_size=4))
def test_a_volume_holds_exactly_what_was_written_last(
    tmp_path_factory: pytest.TempPathFactory, steps: list[dict[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("volume")

    for step in steps:
        write_files(folder, {path: File(content) for path, content in step.items()}, None)

    assert held_in(folder) == steps[-1]
    assert len([path for path in folder.iterdir() if path.name.startswith("..")]) == 2  # ..data and what it names


def test_all_files_change_at_one_moment(tmp_path: Path) -> None:
    """A reader that holds the folder open sees the old files until it opens ``..data`` anew."""
    write_files(tmp_path, {"a": File(b"1"), "b": File(b"1")}, None)
    before = os.readlink(tmp_path / "..data")

    write_files(tmp_path, {"a": File(b"2"), "b": File(b"2")}, None)

    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "..data") != before
    assert not (tmp_path / before).exists()


def test_what_is_mounted_within_a_volume_stays(tmp_path: Path) -> None:
    (tmp_path / "crl").mkdir()

    write_files(tmp_path, {"root-cert.pem": File(b"1")}, None)
    write_files(tmp_path, {"other": File(b"1")}, None)

    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("..")) == ["crl", "other"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_pods_group_may_read(tmp_path: Path) -> None:
    make_folder(tmp_path / "v", 2000, writable=False)

    write_files(tmp_path / "v", {"key": File(b"secret", 0o400)}, 2000)

    status = (tmp_path / "v" / "key").stat()
    assert (status.st_gid, status.st_mode & 0o777) == (2000, 0o440)
    assert (tmp_path / "v").stat().st_mode & 0o7777 == 0o2755

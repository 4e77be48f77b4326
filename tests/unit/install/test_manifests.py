"""What an installation puts on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from isthmus import __version__
from isthmus.api.kinds import CERTIFICATES, KINDS
from isthmus.install import (
    COMPONENT,
    PART_OF,
    AgentValues,
    ManagementPlaneValues,
    Release,
    agent,
    created_once,
    management_plane,
    read_values,
    registration,
    secrets_to_make,
)
from isthmus.model.problem import Problem
from tests.golden import Golden, case_id, cases, dump_yaml, load_yaml

AGENT = AgentValues(relay=msgspec.structs.replace(AgentValues().relay, cluster="a", server_address="b:1"))


@pytest.mark.parametrize("case", cases("install"), ids=case_id)
def test_manifests(case: Path, golden: Golden) -> None:
    """Every object in full, but of the definitions only that they are there: `isthmus.api` answers for the rest."""
    given = load_yaml(case / "in.yaml")[0]
    release = Release(**given.get("release", {}))
    documents, settings = [given.get("values", {})], given.get("set", [])

    if given["install"] == "agent":
        values = read_values(AgentValues, documents, settings)
        assert isinstance(values, AgentValues)
        found = agent(values, release)
    else:
        chosen = read_values(ManagementPlaneValues, documents, settings)
        assert isinstance(chosen, ManagementPlaneValues)
        secrets = {
            name: {key: value.encode() for key, value in data.items()}
            for name, data in given.get("secrets", {}).items()
        }
        found = management_plane(chosen, release, secrets)

    text = dump_yaml(_shortened(item) for item in found)
    golden.check(case / "out.yaml", text.replace(__version__, "1.2.3"))  # so that a release changes no case


def _shortened(item: dict[str, Any]) -> dict[str, Any]:
    if item["kind"] != "CustomResourceDefinition":
        return item
    metadata = {key: item["metadata"][key] for key in ("name", "labels")}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}


def test_both_installations_share_nothing_but_the_namespace() -> None:
    """A cluster may have both; taking one away leaves the other whole."""
    first, second = ({_key(item): item for item in items} for items in (management_plane(), agent(AGENT)))

    assert {kind for kind, _, _ in first.keys() & second.keys()} == {"Namespace"}
    assert {_defined(item) for item in (*first.values(), *second.values())} - {None} == {
        f"{resource.KIND.plural}.{resource.KIND.group}" for resource in KINDS
    }
    assert {_defined(item) for item in second.values()} - {None} == {
        f"{resource.KIND.plural}.{resource.KIND.group}" for resource in CERTIFICATES
    }


def test_everything_but_the_namespace_says_what_it_belongs_to() -> None:
    """Uninstalling goes by these labels."""
    for items in (management_plane(secrets={"a": {"b": b"c"}}), agent(AGENT)):
        for item in items:
            labels = item["metadata"].get("labels", {})

            assert (PART_OF in labels and COMPONENT in labels) is (item["kind"] != "Namespace"), item["kind"]


ISTIO_SECRETS = (["cacerts"], ["istio-ca-secret"])


def test_no_rule_has_a_wildcard_or_lets_rights_grow() -> None:
    """Minimal rights: everything is named, and nobody may bind roles or act as others.

    On whole clusters the only Secrets are those of Istio's authorities.
    """
    for item in (*management_plane(), *agent(AGENT)):
        for rule in item.get("rules", ()):
            words = {word for words in rule.values() for word in words}

            assert not words & {"*", "bind", "escalate", "impersonate", "rbac.authorization.k8s.io"}
            assert ("secrets" not in words) or item["kind"] == "Role" or rule.get("resourceNames") in ISTIO_SECRETS


def test_secrets_and_settings_are_created_once() -> None:
    """A second installation keeps what agents trust and what the user set."""
    items = management_plane(secrets={"relay-root-tls-secret": {"ca.crt": b"x"}})

    assert {item["kind"] for item in items if created_once(item)} == {"Secret", "Settings"}


def test_a_registration_names_cluster_and_domain() -> None:
    """The object that `cluster register` writes, as the reference shows it."""
    assert registration("cluster1") == {
        "apiVersion": "multicluster.solo.io/v1alpha1",
        "kind": "KubernetesCluster",
        "metadata": {"name": "cluster1", "namespace": "gloo-mesh"},
        "spec": {"clusterDomain": "cluster.local"},
    }


ROOT, SERVER, SIGNING, TOKEN = (
    "relay-root-tls-secret",
    "relay-server-tls-secret",
    "relay-tls-signing-secret",
    "relay-identity-token-secret",
)


@pytest.mark.parametrize(
    ("existing", "made"),
    [
        ((), (ROOT, SERVER, SIGNING, TOKEN)),
        ((ROOT, SERVER, SIGNING, TOKEN), ()),
        ((SERVER, SIGNING, TOKEN), ()),
        ((ROOT, SERVER, SIGNING), (TOKEN,)),
        ((TOKEN,), (ROOT, SERVER, SIGNING)),
    ],
)
def test_missing_secrets_are_made(existing: tuple[str, ...], made: tuple[str, ...]) -> None:
    """All certificates or none, the token by itself; a root whose key is kept elsewhere is not missed."""
    assert secrets_to_make(ManagementPlaneValues(), existing) == made


def test_certificates_of_another_root_are_not_added() -> None:
    """A lost signing CA is the user's to restore: a new one would be of another root than the agents trust."""
    found = secrets_to_make(ManagementPlaneValues(), (ROOT, SERVER, TOKEN))

    assert isinstance(found, Problem)
    assert found.reason == "SecretMissing"
    assert SIGNING in found.message
    assert SERVER not in found.message


def test_brought_secrets_must_be_there() -> None:
    """With selfSigned=false nothing is made up."""
    values = read_values(ManagementPlaneValues, [], ["enterprise-networking.selfSigned=false"])
    assert isinstance(values, ManagementPlaneValues)

    found = secrets_to_make(values, (SERVER,))

    assert isinstance(found, Problem)
    assert SIGNING in found.message
    assert TOKEN in found.message
    assert secrets_to_make(values, (SERVER, SIGNING, TOKEN)) == ()


def test_without_tls_no_secret_is_needed() -> None:
    """An insecure relay has neither certificates nor a token."""
    values = read_values(ManagementPlaneValues, [], ["global.insecure=true"])
    assert isinstance(values, ManagementPlaneValues)

    assert secrets_to_make(values, ()) == ()


def _key(item: dict[str, Any]) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _defined(item: dict[str, Any]) -> str | None:
    return item["metadata"]["name"] if item["kind"] == "CustomResourceDefinition" else None

"""What users wrote: what can't be read harms nothing that could be read before."""

from __future__ import annotations

from typing import Any

from isthmus.api.discovery import Destination
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.server.policies import Policies
from tests.unit.server.objects import destination, stored

KIND = VirtualMesh.KIND


def virtual_mesh(name: str = "vm", generation: int = 1, version: int = 1, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": KIND.api_version,
        "kind": KIND.kind,
        "metadata": {
            "name": name,
            "namespace": "gloo-mesh",
            "generation": generation,
            "resourceVersion": str(version),
        },
        "spec": spec,
    }


def test_policies_are_unread_until_listed() -> None:
    policies = Policies((KIND,))

    policies.changed(KIND, virtual_mesh())
    assert policies.unread() == (KIND,)
    policies.replaced(KIND, [])

    assert policies.unread() == ()
    assert policies.objects(KIND) == ()


def test_a_new_status_is_no_change() -> None:
    policies = Policies((KIND,))
    assert policies.replaced(KIND, [virtual_mesh()])

    assert not policies.changed(KIND, {**virtual_mesh(version=2), "status": {"state": "ACCEPTED"}})
    assert policies.changed(KIND, virtual_mesh(generation=2, version=3, federation={}))


def test_what_was_readable_stays_in_force() -> None:
    policies = Policies((KIND,))
    (key,) = policies.replaced(KIND, [virtual_mesh()])

    assert not policies.changed(KIND, virtual_mesh(nonsense=1))

    assert policies.get(key) is not None
    assert list(policies.unreadable) == [key]
    assert policies.unknown() == ()
    assert policies.replaced(KIND, []) == {key: None}
    assert not policies.unreadable


def test_what_never_was_readable_is_unknown_until_it_is_mended_or_gone() -> None:
    policies = Policies((KIND,))
    policies.replaced(KIND, [virtual_mesh("a", nonsense=1), virtual_mesh("b", nonsense=1)])
    assert [key.name for key in policies.unknown()] == ["a", "b"]

    policies.changed(KIND, virtual_mesh("a"))
    policies.removed(KIND, virtual_mesh("b"))

    assert policies.unknown() == ()
    assert not policies.unreadable


def test_a_list_tells_what_is_gone() -> None:
    policies = Policies((KIND,))
    policies.replaced(KIND, [virtual_mesh("a"), virtual_mesh("b")])

    changes = policies.replaced(KIND, [virtual_mesh("b"), virtual_mesh("c")])

    assert {key.name: found is not None for key, found in changes.items()} == {"a": False, "c": True}


def test_discovered_objects_are_no_policies() -> None:
    policies = Policies((Destination.KIND,))

    assert not policies.replaced(Destination.KIND, [stored(destination("x", "a"))])

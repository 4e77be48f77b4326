"""The types as Python objects, and what is generated from them."""

from __future__ import annotations

import pytest
import yaml

from isthmus.api import generate
from isthmus.api.base import ApiStruct, ObjectMeta, Resource
from isthmus.api.common import CommonCertOptions, ObjectRef, StringMatch
from isthmus.api.docstrings import attribute_docs
from isthmus.api.kinds import BY_KIND, KINDS
from isthmus.api.reference import page, pages
from isthmus.api.shape import ListOf, MapOf, Message, Shape, fields_of
from isthmus.api.virtual_mesh import Federation, RootCertificateAuthority, VirtualMesh, VirtualMeshSpec
from isthmus.api.written import stale
from isthmus.model.ref import ObjectKey, Ref

each_kind = pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.KIND.kind)


def messages_in(shape: Shape) -> set[type[ApiStruct]]:
    """All message types that *shape* is made of."""
    match shape:
        case Message(cls):
            return {cls}.union(*(messages_in(field.shape) for field in fields_of(cls)))
        case ListOf(item) | MapOf(item):
            return messages_in(item)
    return set()


def test_no_two_kinds_share_a_name() -> None:
    assert len(BY_KIND) == len(KINDS) == len({cls.KIND.plural for cls in KINDS})


def test_two_arms_of_a_oneof_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="exact and prefix"):
        StringMatch(exact="a", prefix="b")


@each_kind
def test_every_field_is_documented(cls: type[Resource]) -> None:
    for message in messages_in(Message(cls)):
        assert message.__doc__
        assert {field.attribute for field in fields_of(message)} <= attribute_docs(message).keys(), message


@each_kind
def test_every_message_with_a_oneof_checks_it(cls: type[Resource]) -> None:
    for message in messages_in(Message(cls)):
        assert hasattr(message, "__post_init__") == bool(message.ONEOFS), message
        assert all(len(group) > 1 for group in message.ONEOFS)


def test_zero_values_are_not_written() -> None:
    mesh = VirtualMesh(spec=VirtualMeshSpec(meshes=(ObjectRef(name="a"),)))

    assert mesh.manifest() == {
        "apiVersion": "networking.mesh.gloo.solo.io/v1",
        "kind": "VirtualMesh",
        "spec": {"meshes": [{"name": "a"}]},
    }


def test_empty_messages_are_written() -> None:
    root = RootCertificateAuthority(generated=CommonCertOptions())
    mesh = VirtualMesh(spec=VirtualMeshSpec(federation=Federation()))

    assert mesh.manifest()["spec"] == {"federation": {}}
    assert root.generated == CommonCertOptions()


def test_an_object_knows_its_identity() -> None:
    mesh = VirtualMesh(metadata=ObjectMeta(name="a", namespace="b"))

    assert mesh.key == ObjectKey("networking.mesh.gloo.solo.io/v1", "VirtualMesh", "b", "a")
    assert mesh.ref == Ref("", "b", "a")


@each_kind
def test_a_page_shows_every_field_of_the_spec(cls: type[Resource]) -> None:
    text = page(cls)

    (spec,) = (field.shape for field in fields_of(cls) if field.name == "spec")
    assert isinstance(spec, Message)
    for field in fields_of(spec.cls):
        assert f"| `spec.{field.name}` |" in text


@each_kind
def test_a_page_shows_an_example_of_its_kind(cls: type[Resource]) -> None:
    example = page(cls).split("```yaml\n")[1].split("```")[0]

    assert yaml.safe_load(example)["kind"] == cls.KIND.kind


def test_the_index_links_every_page() -> None:
    index = pages()["README.md"]

    assert all(f"]({name})" in index for name in pages() if name != "README.md")


def test_nothing_generated_is_stale() -> None:
    assert stale(generate.generated(), generate.present()) == []


def test_what_changed_or_is_missing_is_stale() -> None:
    files = generate.generated()
    first, *_ = files
    absent = generate.PAGES / "ofthefuture.md"

    assert stale({**files, first: "changed", absent: "new"}, generate.present()) == sorted([first, absent])


def test_what_would_not_be_written_any_more_is_stale() -> None:
    files = generate.generated()
    first = next(iter(files))

    assert stale({path: text for path, text in files.items() if path != first}, generate.present()) == [first]

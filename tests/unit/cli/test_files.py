"""Objects from files: every form in which users keep them, and what is said of the rest."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from isthmus.cli.failure import Failure
from isthmus.cli.files import read_documents, read_values_files

TWO = "kind: A\n---\n---\nkind: B\n"


def sources(*names: str) -> list[tuple[str, str]]:
    return [(document.manifest["kind"], document.source) for document in read_documents(names)]


def test_every_document_says_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO)

    assert sources(str(file)) == [("A", str(file)), ("B", f"{file}, document 3")]


def test_a_list_counts_as_its_items(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_text('{"kind": "List", "items": [{"kind": "A"}, {"kind": "List", "items": [{"kind": "B"}]}]}')

    assert sources(str(file)) == [("A", f"{file}, items[0]"), ("B", f"{file}, items[1], items[0]")]


def test_a_folder_gives_all_its_files_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("kind: B")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yml").write_text("kind: C")
    (tmp_path / "a.json").write_text('{"kind": "A"}')
    (tmp_path / "README.md").write_text("no object")

    assert [kind for kind, _ in sources(str(tmp_path))] == ["A", "B", "C"]


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TWO.encode())))

    assert sources("-") == [("A", "standard input"), ("B", "standard input, document 3")]


def test_timestamps_stay_text_as_kubernetes_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("kind: A\nat: 2021-03-21T17:33:46Z\nday: 2021-03-21")

    (document,) = read_documents([str(file)])

    assert document.manifest == {"kind": "A", "at": "2021-03-21T17:33:46Z", "day": "2021-03-21"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: A\nspec:\n  x: 1\n  x: 2\n", "line 4, column 3 the key 'x' stands twice"),
        ('{"kind": "A", "kind": "B"}', "line 1, column 15 the key 'kind' stands twice"),
        ("kind: [\n", "line 2, column 1"),
        ("kind: !!python/object:os.system A", "could not determine a constructor"),
        ("kind: A\n---\njust text\n", ", document 2: a Kubernetes object was expected, found str"),
        ("kind: \x00", "unacceptable character|control characters are not allowed"),
    ],
)
def test_what_is_no_object_is_reported_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)

    with pytest.raises(Failure, match=message) as failure:
        list(read_documents([str(file)]))

    assert failure.value.message.startswith(str(file))


def test_a_merge_key_is_no_double_key(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("base: &base {x: 1, y: 2}\nkind: A\nspec:\n  <<: *base\n  x: 3\n")

    (document,) = read_documents([str(file)])

    assert document.manifest["spec"] == {"x": 3, "y": 2}


def test_missing_files_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no such file or folder"):
        list(read_documents([str(tmp_path / "none")]))
    with pytest.raises(Failure, match="no YAML or JSON file below this folder"):
        list(read_documents([str(tmp_path)]))


def test_a_values_file_is_one_document_of_values(tmp_path: Path) -> None:
    good, empty, bad = tmp_path / "good.yaml", tmp_path / "empty.yaml", tmp_path / "bad.yaml"
    good.write_text("licenseKey: k\n")
    empty.write_text("# nothing set\n")
    bad.write_text("- a\n")

    assert read_values_files([good, empty]) == [{"licenseKey": "k"}]
    with pytest.raises(Failure, match="one document with values was expected"):
        read_values_files([bad])

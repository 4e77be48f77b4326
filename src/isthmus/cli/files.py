"""Kubernetes objects from YAML and JSON files, as users keep them: many documents, lists, folders, standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import yaml

from isthmus.cli.failure import Failure

Manifest = dict[str, Any]

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")


class Document(msgspec.Struct, frozen=True):
    """One object and where it stands: ``file`` or ``file, document 2``."""

    manifest: Manifest
    source: str


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # C where libyaml is there
    """YAML as Kubernetes reads it: timestamps stay text, and a key that stands twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        if (twice := _twice(node)) is not None:
            problem = f"the key {twice.value!r} stands twice"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=twice.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _twice(node: yaml.MappingNode) -> yaml.ScalarNode | None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                return key
            seen.add(key.value)
    return None


def read_documents(names: Iterable[str], *, by_programs: bool = False) -> Iterator[Document]:
    """The objects of files, of all YAML and JSON files below folders, and of standard input (``-``), in that order.

    Files of a folder come in the order of their names, objects in that of the text; a ``List`` counts as its items.
    JSON that was written *by_programs* is read five times as fast, without a look for keys that stand twice.
    Raises `Failure` for what can't be read.
    """
    from_json = orjson.loads if by_programs else _from_json
    for name in names:
        for path in _files(name):
            source = "standard input" if path is None else str(path)
            for index, value in enumerate(_values(path, source, from_json), start=1):
                if value is not None:
                    yield from _objects(value, source if index == 1 else f"{source}, document {index}")


def _from_json(text: bytes) -> Any:
    return json.loads(text, object_pairs_hook=_pairs)


def _pairs(pairs: list[tuple[str, Any]]) -> Manifest:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice; YAML's reader says where")
    return found


def _files(name: str) -> Iterator[Path | None]:
    if name == STDIN:
        yield None
        return
    path = Path(name)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not found:
            raise Failure(f"{name}: no YAML or JSON file below this folder", "name a file, a folder with files, or -")
        yield from found
    elif path.exists():
        yield path
    else:
        raise Failure(f"{name}: no such file or folder", "name a file, a folder, or - for standard input")


def _values(path: Path | None, source: str, from_json: Callable[[bytes], Any] = _from_json) -> Iterator[Any]:
    try:
        text = sys.stdin.buffer.read() if path is None else path.read_bytes()
        try:
            yield from_json(text)  # twenty times as fast as the same text read as YAML
        except ValueError:
            yield from yaml.load_all(text, _Loader)
    except OSError as error:
        raise Failure(f"{source}: {error.strerror}", "name a file that exists and may be read") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f" line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise Failure(f"{source}:{at} {error.problem or 'not YAML'}", "mend the file and try again") from error
    except yaml.YAMLError as error:
        raise Failure(f"{source}: {' '.join(str(error).split())}", "mend the file and try again") from error


def _objects(value: Any, source: str) -> Iterator[Document]:
    if isinstance(value, dict) and value.get("kind") == "List" and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            yield from _objects(item, f"{source}, items[{index}]")
    elif isinstance(value, dict):
        yield Document(value, source)
    else:
        raise Failure(
            f"{source}: a Kubernetes object was expected, found {type(value).__name__}", "mend the file and try again"
        )


def read_values_files(paths: Iterable[Path]) -> list[Manifest]:
    """The values of an installation in each of *paths*. Raises `Failure`."""
    found = []
    for path in paths:
        values = [value for value in _values(path, str(path)) if value is not None]
        if len(values) > 1 or not all(isinstance(value, dict) for value in values):
            raise Failure(f"{path}: one document with values was expected", "see `--set` for the names of values")
        found += values
    return found

"""Golden files: what a case must yield, kept beside its input and compared to the byte.

A case is a folder under tests/cases; its golden files are those named ``out.*`` and those in a folder named ``out``.
``pytest --update`` writes them instead of comparing. A golden file that no test of a whole run asked for is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

CASES = Path(__file__).parent / "cases"


class Golden:
    """Compares with golden files, or rewrites them."""

    def __init__(self, *, update: bool) -> None:
        self._update = update
        self.asked: set[str] = set()
        """Golden files that were compared or written, relative to `CASES`."""

    def check(self, path: Path, text: str) -> None:
        """Fail with a diff unless *path* holds exactly *text*."""
        self.asked.add(path.resolve().relative_to(CASES).as_posix())
        if self._update:
            if not path.exists() or path.read_text() != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return
        if not path.exists():
            pytest.fail(f"{path} does not exist; `pytest --update` writes it", pytrace=False)
        wanted = path.read_text()
        if wanted != text:
            diff = difflib.unified_diff(wanted.splitlines(), text.splitlines(), str(path), "this run", lineterm="", n=5)
            pytest.fail("\n".join(diff), pytrace=False)


def golden_files() -> set[str]:
    """All golden files, relative to `CASES`."""
    found = (path.relative_to(CASES) for path in CASES.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.name.startswith("out.") or "out" in path.parts[:-1]}


def cases(folder: str) -> list[Path]:
    """The case folders below *folder* of `CASES`, at any depth, in order of their names."""
    return sorted(path.parent for path in (CASES / folder).rglob("in.yaml"))


def case_id(case: Path) -> str:
    """The name of a case in test reports."""
    return case.name


def load_yaml(path: Path) -> list[dict[str, Any]]:
    """The documents of *path*, empty ones left out."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def dump_yaml(documents: Iterable[dict[str, Any]]) -> str:
    """*documents* as one YAML stream: block style, keys sorted, long strings unbroken."""
    return yaml.dump_all(documents, Dumper=_Dumper, explicit_start=True, sort_keys=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

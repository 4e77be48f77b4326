"""Files that `make generate` writes and `make lint` compares: one way to do both, for everything that is generated."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path


def stale(files: Mapping[Path, str], present: Iterable[Path]) -> list[Path]:
    """Those of *files* that are missing or differ, and those *present* that would not be written any more."""
    changed = {path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text}
    return sorted(changed | (set(present) - files.keys()))


def keep(files: Mapping[Path, str], present: Iterable[Path], arguments: list[str]) -> int:
    """Write *files*, or with ``--check`` only name those that are stale. Exit code: 1 if there were any to name."""
    found = stale(files, present)
    for path in found:
        if "--check" in arguments:
            print(f"stale: {path} (run `make generate`)", file=sys.stderr)  # noqa: T201
        elif path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()
    return int("--check" in arguments and bool(found))

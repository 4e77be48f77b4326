"""``python -m isthmus.api.generate``: writes what is made from the types, or says with ``--check`` what is stale."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from isthmus.api.crd import crd
from isthmus.api.crds import file_name
from isthmus.api.kinds import KINDS
from isthmus.api.reference import pages

API = Path(__file__).parent
PAGES = API.parents[2] / "docs" / "reference" / "api"
HEADER = "# Generated from isthmus.api by `make generate`.\n"


def generated() -> dict[Path, str]:
    """Content of every generated file."""
    crds = {API / "crds" / file_name(cls): HEADER + _yaml(crd(cls)) for cls in KINDS}
    return {**crds, **{PAGES / name: text for name, text in pages().items()}}


def _yaml(manifest: object) -> str:
    return yaml.dump(manifest, Dumper=_NoAliases, sort_keys=False, width=10_000, allow_unicode=True)


class _NoAliases(yaml.SafeDumper):
    """Repeats equal parts instead of pointing at the first: kubectl reads either, people only this."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def stale(files: dict[Path, str]) -> list[Path]:
    """Files that are missing, differ from what would be written, or would not be written any more."""
    present = {*API.glob("crds/*.yaml"), *PAGES.glob("*.md")}
    changed = {path for path, text in files.items() if path not in present or path.read_text(encoding="utf-8") != text}
    return sorted(changed | (present - files.keys()))


def main(arguments: list[str]) -> int:
    """Exit code: 1 if ``--check`` found something stale, else 0."""
    files = generated()
    for path in stale(files):
        if "--check" in arguments:
            print(f"stale: {path} (run `make generate`)", file=sys.stderr)  # noqa: T201
        elif path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()
    return 1 if "--check" in arguments and stale(files) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

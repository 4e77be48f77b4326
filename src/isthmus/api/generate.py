"""``python -m isthmus.api.generate``: writes what is made from the types, or says with ``--check`` what is stale."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from isthmus.api.crd import crd
from isthmus.api.crds import file_name
from isthmus.api.kinds import KINDS
from isthmus.api.reference import pages
from isthmus.api.written import keep

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


def present() -> set[Path]:
    """What is there of it."""
    return {*API.glob("crds/*.yaml"), *PAGES.glob("*.md")}


if __name__ == "__main__":
    sys.exit(keep(generated(), present(), sys.argv[1:]))

"""Which local program runs for which container image. A table, because the lab pulls no images.

The user of an image is the one that its published counterpart names, so that ``runAsNonRoot`` holds or fails as there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.lab.binaries import Binaries

ISTIO_USER = 1337
BOOKINFO_USER = 1000
ISTHMUS_USER = 65532  # what distroless images call "nonroot"
_BOOKINFO = "examples-bookinfo-"


@dataclass(frozen=True)
class Image:
    """What a container of the image starts with."""

    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files of the machine, by the place where a container sees them."""
    user: int = 0
    group: int = 0
    env: Mapping[str, str] = field(default_factory=dict)


class Images:
    """The images that the lab knows."""

    def __init__(self, binaries: Binaries, *, python: str = sys.executable) -> None:
        lab = Path(__file__).parent
        proxy = {
            "/usr/local/bin/pilot-agent": binaries.path("pilot-agent"),
            "/usr/local/bin/envoy": binaries.envoy,
            "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": binaries.envoy_bootstrap,
        }
        pilot = {"/usr/local/bin/pilot-discovery": binaries.path("pilot-discovery")}
        scripts = Path(python).parent
        self._python = python
        self._table = {
            "proxyv2": Image(("/usr/local/bin/pilot-agent",), files=proxy, user=ISTIO_USER, group=ISTIO_USER),
            "pilot": Image(("/usr/local/bin/pilot-discovery",), files=pilot, user=ISTIO_USER, group=ISTIO_USER),
            "isthmus-server": Image((str(scripts / "isthmus-server"),), user=ISTHMUS_USER),
            "isthmus-agent": Image((str(scripts / "isthmus-agent"),), user=ISTHMUS_USER),
            "lab-client": Image(
                (python, "-m", "isthmus.lab.client"),
                files={"/usr/local/bin/call": lab / "call"},
                user=ISTHMUS_USER,
                env={"PYTHON": python},
            ),
        }

    def of(self, reference: str) -> Image | None:
        """The image that *reference* names, whatever its registry and tag."""
        name = name_of(reference)
        known = self._table.get(name)
        if known is None and name.startswith(_BOOKINFO):
            service, _, version = name.removeprefix(_BOOKINFO).rpartition("-")
            if service and version:
                return Image((self._python, "-m", "isthmus.lab.bookinfo", service, version), user=BOOKINFO_USER)
        return known

    @property
    def names(self) -> tuple[str, ...]:
        """What `of` knows, for messages; sorted."""
        return tuple(sorted([*self._table, f"{_BOOKINFO}SERVICE-VERSION"]))


def name_of(reference: str) -> str:
    """The last part of an image's path: ``istio/proxyv2:1.30@sha256:…`` is ``proxyv2``."""
    return reference.partition("@")[0].rpartition("/")[2].partition(":")[0]

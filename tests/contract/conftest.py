"""Which API servers the contract is held against: the embedded one, and a real one if a kubeconfig names it.

``ISTHMUS_CONTRACT_KUBECONFIG=<file> pytest tests/contract`` runs every test on both. The real one needs nothing but
kube-apiserver and etcd; what controllers do (garbage collection, the end of a namespace) is tested in unit/embedded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.server import HISTORY, Server, embedded, real_kubeconfig

collect_ignore = [] if shutil.which("kubectl") else ["test_kubectl.py"]


def pytest_report_header() -> str:
    real = real_kubeconfig()
    held = f"contract: embedded API server{' and ' + real if real else ' only'}"
    return held if shutil.which("kubectl") else f"{held}; kubectl is not on PATH, its tests are left out"


@pytest.fixture(scope="session", params=["embedded", *(["real"] if real_kubeconfig() else [])])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API server that the contract is held against."""
    if request.param == "real":
        found = Server(Path(real_kubeconfig()))
        yield found
        found.close()
        return
    with embedded(tmp_path_factory.mktemp("embedded"), "--history", str(HISTORY)) as (_, kubeconfig):
        found = Server(kubeconfig)
        yield found
        found.close()

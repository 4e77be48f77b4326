"""`meshctl access` on a saved fleet: the matrix of a namespace and what a change would open, each a whole process.

``python -m bench.access SERVICES`` measures one size, of services on both clusters together, and prints a JSON object a
line. Seconds are from the start of the process to its end; those of the processor do not depend on what else runs.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import orjson
from rich.table import Table

from bench import fleet
from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec
from isthmus.api.base import Resource
from isthmus.api.common import (
    ClusterObjectRef,
    DestinationSelector,
    IdentitySelector,
    KubeIdentityMatcher,
    KubeServiceMatcher,
)
from isthmus.api.discovery import KubernetesWorkload, Workload, WorkloadSpec
from isthmus.api.virtual_mesh import GlobalAccessPolicy, VirtualMesh

SERVICES = 10_000
MESHCTL = (sys.executable, "-c", "from isthmus.cli.main import main; main()")
Row = dict[str, object]


def workload(cluster: str, number: int) -> Workload:
    """The Deployment behind service *number* of *cluster*, with an identity of its own."""
    name, namespace = f"service-{number}", f"ns-{number // fleet.SERVICES_PER_NAMESPACE}"
    controller = ClusterObjectRef(name=name, namespace=namespace, cluster_name=cluster)
    kubernetes = KubernetesWorkload(controller=controller, pod_labels={"app": name}, service_account_name=name)
    found = fleet.service(cluster, number)
    return Workload(metadata=found.metadata, spec=WorkloadSpec(kubernetes=kubernetes, mesh=found.spec.mesh))


def policy(number: int, *methods: str) -> AccessPolicy:
    """Lets everybody of namespace *number* call the services of that namespace and of the next, on both clusters."""
    near = KubeServiceMatcher(namespaces=(f"ns-{number}", f"ns-{number + 1}"))
    callers = KubeIdentityMatcher(namespaces=(f"ns-{number}",), clusters=fleet.CLUSTERS)
    return AccessPolicy(
        metadata=msgspec.structs.replace(fleet.virtual_mesh().metadata, name=f"near-{number}"),
        spec=AccessPolicySpec(
            source_selector=(IdentitySelector(kube_identity_matcher=callers),),
            destination_selector=(DestinationSelector(kube_service_matcher=near),),
            allowed_methods=methods,
        ),
    )


def saved(services: int) -> Iterator[Resource]:
    """A fleet of *services* services on two clusters, closed by default, with a policy for every namespace."""
    each = services // len(fleet.CLUSTERS)
    for found in fleet.fleet(each):
        if isinstance(found, VirtualMesh):
            spec = msgspec.structs.replace(found.spec, global_access_policy=GlobalAccessPolicy.ENABLED)
            found = msgspec.structs.replace(found, spec=spec)
        yield found
    for cluster in fleet.CLUSTERS:
        yield from (workload(cluster, number) for number in range(each))
    yield from (policy(number) for number in range(each // fleet.SERVICES_PER_NAMESPACE))


def run(services: int = SERVICES) -> list[Row]:
    """All rows for one size."""
    with tempfile.TemporaryDirectory() as folder:
        everything, change = Path(folder) / "fleet.json", Path(folder) / "change.json"
        everything.write_bytes(as_json(saved(services)))
        change.write_bytes(as_json([policy(7, "GET")]))
        wide = Path(folder) / "wide.json"
        closed = msgspec.structs.replace(fleet.virtual_mesh())
        wide.write_bytes(as_json([closed]))
        source = ("--from", str(everything), "-o", "json")
        return [
            measure("matrix of a namespace", services, "matrix", "ns-7", *source),
            measure("diff of a policy", services, "matrix", "--diff", "-f", str(change), *source),
            measure("diff of globalAccessPolicy", services, "matrix", "--diff", "-f", str(wide), *source),
        ]


def as_json(resources: Iterator[Resource] | list[Resource]) -> bytes:
    """*resources* as ``meshctl get -o json`` prints them."""
    return orjson.dumps({"apiVersion": "v1", "kind": "List", "items": [found.manifest() for found in resources]})


def measure(name: str, services: int, *words: str) -> Row:
    """One run of `meshctl access` *words*."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    ran = subprocess.run([*MESHCTL, "access", *words], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode not in (0, 2) or not ran.stdout:
        raise SystemExit(ran.stderr)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "name": f"access: {name}",
        "services": services,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(processor, 2),
        "answers": len(next(v for v in json.loads(ran.stdout).values() if isinstance(v, list))),
    }


def table(rows: list[Row]) -> Table:
    """The figures of `run`."""
    made = Table(title="meshctl access, from a saved fleet: the whole process", title_justify="left")
    for header in ("", "services", "time", "processor"):
        made.add_column(header, justify="left" if not header else "right")
    for row in rows:
        made.add_row(str(row["name"]), f"{row['services']:,}", f"{row['seconds']} s", f"{row['cpu_seconds']} s")
    return made


if __name__ == "__main__":
    for found in run(int(sys.argv[1]) if len(sys.argv) > 1 else SERVICES):
        print(json.dumps(found))  # noqa: T201

"""``make bench``: every benchmark, as tables, and with ``BENCH_JSON=FILE`` as one JSON object a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SIZES = (1_000, 10_000, 50_000)
FILE_COLUMNS = 140  # of the tables where no terminal says how wide it is
ENGINES = (
    ("bench.engine", "The engine: from event in to desired delta published", "services per cluster"),
    (
        "bench.policies",
        "Policies: a TrafficPolicy and an AccessPolicy for every ten services, a VirtualDestination for every fifty",
        "services on four clusters",
    ),
)
Row = dict[str, Any]


def measure(module: str, services: int) -> Iterator[Row]:
    """The rows of *module* for one size, in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", module, str(services)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")


def growth(rows: list[Row], row: Row) -> str:
    """How the row's time compares with that of the next smaller size, per time more services."""
    figure = "seconds" if "seconds" in row else "p50_ms"
    smaller = [other for other in rows if other["name"] == row["name"] and other["services"] < row["services"]]
    if not smaller or not smaller[-1][figure]:
        return ""
    times, services = row[figure] / smaller[-1][figure], row["services"] / smaller[-1]["services"]
    return f"×{times:.2f} for ×{services:g}"


def table(title: str, services: str, rows: list[Row]) -> Table:
    """The engine's figures, grouped by what was measured; *services* says which ones are counted."""
    made = Table(title=title, title_justify="left")
    for header in (
        "",
        services,
        "time",
        "p99",
        "growth",
        "recomputed",
        "objects",
        "relay bytes",
        "peak MB",
    ):
        made.add_column(header, justify="left" if header in ("", "growth") else "right")
    names = list(dict.fromkeys(row["name"] for row in rows))
    for name in names:
        for row in (row for row in rows if row["name"] == name):
            time = f"{row['seconds']:.2f} s" if "seconds" in row else f"{row['p50_ms']:.3f} ms"
            p99 = f"{row['p99_ms']:.3f} ms" if "p99_ms" in row else ""
            counts = (
                f"{row[key]:,}" if key in row else "" for key in ("recomputed", "objects", "relay_bytes", "rss_mb")
            )
            made.add_row(name, f"{row['services']:,}", time, p99, growth(rows, row), *counts)
        made.add_section()
    return made


def main() -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_COLUMNS)
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    rows: list[Row] = []
    for module, title, count in ENGINES:
        measured: list[Row] = []
        for services in sizes:
            with console.status(f"{services:,} {count}"):
                measured.extend(measure(module, services))
        console.print(table(title, count, measured))
        rows += measured
    from bench import access, end_to_end, issuance

    with console.status("end to end on the embedded fleet"):
        found = end_to_end.run()
    console.print(end_to_end.table(found))
    with console.status("certificates for many clusters"):
        issued = issuance.run()
    console.print(issuance.table(issued))
    with console.status("meshctl access on a saved fleet"):
        asked = access.run()
    console.print(access.table(asked))
    if target := os.environ.get("BENCH_JSON"):
        Path(target).write_text("".join(json.dumps(row) + "\n" for row in [*rows, *found, *issued, *asked]))


if __name__ == "__main__":
    main()

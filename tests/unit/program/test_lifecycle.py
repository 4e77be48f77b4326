"""How a program ends, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import sys
from isthmus.program.lifecycle import BadOption, run_program
from isthmus.program.logs import configure_logs

async def main():
    {body}

configure_logs(verbose=False, environment={{}})
sys.exit(run_program(main, expected=(BadOption,)))
"""


def run(body: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and log lines of a program whose main is *body*."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, timeout=60
    )
    return ended.returncode, [json.loads(line) for line in ended.stderr.splitlines()]


def test_what_the_operator_can_mend_is_one_line() -> None:
    code, (line,) = run('raise ExceptionGroup("a", [ExceptionGroup("b", [BadOption("--port: no")])])')

    assert (code, line["event"], line["error"]) == (1, "cannot go on", "--port: no")


def test_our_own_fault_is_shown_whole() -> None:
    code, (line,) = run("1 / 0")

    assert (code, line["event"]) == (1, "crashed")
    assert "ZeroDivisionError" in line["exception"]


def test_our_own_fault_is_shown_next_to_the_operators() -> None:
    code, lines = run('raise ExceptionGroup("a", [BadOption("--port: no"), ZeroDivisionError("x")])')

    assert (code, [line["event"] for line in lines]) == (1, ["cannot go on", "crashed"])
    assert "ZeroDivisionError" in lines[1]["exception"]


def test_a_signal_ends_it_in_order() -> None:
    code, lines = run("import os, signal, asyncio; os.kill(os.getpid(), signal.SIGTERM); await asyncio.sleep(60)")

    assert (code, [line["event"] for line in lines]) == (0, ["stopped"])


def test_a_program_that_ends_by_itself_ended_well() -> None:
    assert run("pass") == (0, [])

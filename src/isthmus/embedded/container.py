"""The process of a container. It ends with whoever started it, however that one ends: nothing is ever left behind.

``python -P container.py PARENT MODULE:FUNCTION [ARGUMENT ...]`` runs a program at once.
``python -P container.py PARENT --wait MODULE [MODULE ...]`` imports the modules and then waits for a line on standard
input that says what to run: a JSON object with ``program``, ``arguments``, ``environment`` and the file ``output``.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
WAIT = "--wait"


def main(arguments: list[str]) -> int:
    """Run the program; its exit code."""
    parent, program, *rest = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return 1  # it ended before the kernel was told to tell us
    if program != WAIT:
        return _run(program, rest)
    for module in rest:
        importlib.import_module(module)
    line = sys.stdin.readline()
    if not line:
        return 0
    what = json.loads(line)
    os.environ.clear()
    os.environ.update(what["environment"])
    output = os.open(what["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    return _run(what["program"], what["arguments"])


def _run(program: str, arguments: list[str]) -> int:
    module, _, function = program.partition(":")
    sys.argv = [module, *arguments]
    return int(getattr(importlib.import_module(module), function)() or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

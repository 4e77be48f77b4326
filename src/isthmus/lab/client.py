"""The pod that calls others: it sleeps, and lends its place to `kubectl exec deploy/client -- call URL`.

Its image has the file `call` beside this module as /usr/local/bin/call, and the interpreter in the variable PYTHON.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """The exit code of `call …`; without arguments sleep, then 0."""
    if argv[:1] == ["call"]:
        from isthmus.lab.calls import call  # a sleeper needs none of it: 8 MB

        return call(argv[1:])
    if argv:
        sys.stderr.write(f"{argv[0]!r} is not call, the only command\n")
        return 2
    return _sleep()


def _sleep() -> int:
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # as first process of its container it inherits orphans; none stays a zombie
    sys.stdout.write("sleeps until it is told to stop\n")
    sys.stdout.flush()
    signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Log lines of what commands use underneath, on standard error: warnings, or everything with ``--verbose``."""

from __future__ import annotations

import sys


def configure(*, verbose: bool = False) -> None:
    """Set structlog up once; for commands whose work may log. Its import costs 0.1 s, which no other command pays."""
    import logging

    import structlog

    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )

"""How the programs log: one JSON object a line on stderr, or readable lines on a terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

import structlog


def configure_logs(verbose: bool, environment: Mapping[str, str] = os.environ) -> None:
    """Set up logging for this process.

    ``DEBUG_MODE=true`` or *verbose* show debug messages, ``LOG_LEVEL`` names any level. Source: reference, relay.
    """
    name = environment.get("LOG_LEVEL", "info")
    level = logging.getLevelNamesMapping().get(name.upper(), logging.INFO)
    if verbose or environment.get("DEBUG_MODE", "").lower() == "true":
        level = logging.DEBUG
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

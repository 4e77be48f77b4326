"""What every test may use: golden files, and Hypothesis settings for a shared machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.golden import Golden, golden_files

# A shared machine has slow moments; the time limit of each test is enough.
# CI repeats the same examples, so that a red run can be repeated; everybody else explores.
settings.register_profile(
    "isthmus", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("isthmus")

GOLDEN = pytest.StashKey[Golden]()
ASKED = pytest.StashKey[set[str]]()
UNASKED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite golden files instead of comparing with them")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[GOLDEN] = Golden(update=config.getoption("--update"))
    config.stash[ASKED] = set()


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A test that sets logging up leaves nothing of it, least of all the captured stream that it wrote to."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def golden(pytestconfig: pytest.Config) -> Golden:
    """Compares with golden files; see tests/golden.py."""
    return pytestconfig.stash[GOLDEN]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Collect what a worker of pytest-xdist asked for."""
    node.config.stash[ASKED].update(getattr(node, "workeroutput", {}).get("golden", ()))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a whole, green run that left golden files unasked for: they belong to no test any more."""
    config = session.config
    asked = config.stash[GOLDEN].asked
    if hasattr(config, "workeroutput"):
        config.workeroutput["golden"] = sorted(asked)
        return
    if exitstatus == pytest.ExitCode.OK and _is_whole(config):
        config.stash[UNASKED] = sorted(golden_files() - asked - config.stash[ASKED])
        if config.stash[UNASKED]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for path in config.stash.get(UNASKED, []):
        terminalreporter.write_line(f"ERROR tests/cases/{path}: no test asked for this golden file", red=True)


def _is_whole(config: pytest.Config) -> bool:
    """Whether every test was to run."""
    chosen = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly", "maxfail")
    return config.args == config.getini("testpaths") and not any(config.getoption(option, None) for option in chosen)

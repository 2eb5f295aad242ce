"""Fixtures of all tests. Servers start when a test first asks for them, so unit tests need none."""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from support.ledger import Ledger
from support.processes import Processes
from support.servers import Database, Servers, running_servers, settings_for
from support.stack import Stack, stack_environment


def pytest_configure(config: pytest.Config) -> None:
    """A developer's own settings must not reach the tests; nor what a shell that runs them in its background ignores."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    # Processes by the hundred share what one has compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in list(os.environ):
        keep = name.startswith(("UPBEAT_TEST_", "COVERAGE_"))
        if (name.startswith(("UPBEAT_", "CELERY_")) and not keep) or name in ("DATABASE_URL", "REDIS_URL"):
            del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`full` belongs to `make faults`, `browser` to `make browser`, `fuzz` to `make api-fuzz`, and `root` needs root to mount a disk."""
    away = [] if os.environ.get("UPBEAT_TEST_FAULTS") == "full" else ["full"]
    away += [] if "browser" in (config.option.markexpr or "") else ["browser"]
    away += [] if os.environ.get("UPBEAT_TEST_API_REQUESTS") else ["fuzz"]
    away += [] if os.geteuid() == 0 else ["root"]
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in away)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its processes wrote."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Processes):
                report.sections.extend(value.report())
    return report


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """PostgreSQL and Redis, fresh for this session."""
    with running_servers() as running:
        yield running


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[Database]:
    """A fresh, migrated database, shared by the tests of one module."""
    name = servers.new_database()
    yield Database(name, servers.database_url(name))
    servers.drop_database(name)


@pytest.fixture(scope="module")
def redis_url(servers: Servers) -> str:
    """A Redis database that nobody used before, shared by the tests of one module."""
    return servers.new_redis_url()


@pytest.fixture(scope="module")
def settings(servers: Servers, database: Database, redis_url: str) -> Settings:
    """Settings that name the module's database and broker; everything else is the default."""
    return settings_for(servers.postgres.url, database.name, redis_url)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes; all of them have ended when the test has."""
    started = Processes(tmp_path)
    yield started
    started.end()


@pytest.fixture(scope="module")
def shared_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """As `processes`, until the module's last test has ended."""
    started = Processes(tmp_path_factory.mktemp("processes"))
    yield started
    started.end()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """The ledger that this test's workers write."""
    return Ledger(tmp_path / "ledger.jsonl")


@pytest.fixture(scope="module")
def shared_stack(servers: Servers, database: Database, redis_url: str, shared_processes: Processes) -> Stack:
    """As `stack`, for processes that the tests of one module share."""
    ledger = Ledger(shared_processes.folder / "ledger.jsonl")
    return Stack(
        shared_processes,
        stack_environment(servers.postgres.url, database.name, redis_url, ledger.path),
        ledger,
    )


@pytest.fixture
def stack(
    servers: Servers, database: Database, redis_url: str, processes: Processes, ledger: Ledger
) -> Stack:
    """Worker, beat and API processes on the module's database."""
    return Stack(
        processes,
        stack_environment(servers.postgres.url, database.name, redis_url, ledger.path),
        ledger,
    )

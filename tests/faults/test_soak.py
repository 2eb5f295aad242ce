"""A seeded mix of all kinds of fault under load: nothing lost, nothing doubled, no row stuck."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db import sync_engine, sync_sessions
from app.settings import Settings
from support.ledger import Ledger
from support.processes import Processes
from support.servers import Servers, running_servers, settings_for
from support.soak import KINDS, running_field, soak
from support.stack import Stack, stack_environment
from support.trial import Report, Trial

INJECTIONS = 1000


@pytest.fixture
def own_servers() -> Iterator[Servers]:
    """What is done to these servers is nobody else's business."""
    with running_servers() as running:
        yield running


@pytest.fixture
def own_settings(own_servers: Servers) -> Settings:
    name = own_servers.new_database()
    return settings_for(own_servers.postgres.url, name, own_servers.new_redis_url())


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_a_seeded_mix_of_all_faults(
    own_servers: Servers,
    own_settings: Settings,
    processes: Processes,
    ledger: Ledger,
    seed: int,
    tmp_path: Path,
    record_property: Report,
) -> None:
    name, redis_url = own_settings.database.name, own_settings.broker.url()
    stack = Stack(
        processes, stack_environment(own_servers.postgres.url, name, redis_url, ledger.path), ledger
    )
    engine = sync_engine(own_settings.database, name="test")
    trial = Trial(sync_sessions(engine), own_servers.database_url(name), redis_url, ledger)
    with running_field(stack, own_servers, trial, seed, tmp_path) as field:
        outcome = soak(field, own_settings, KINDS, seed, tmp_path, injections=INJECTIONS, pause=0.3)
    engine.dispose()
    sys.stdout.write("\n".join(["", *outcome.lines(), ""]))
    record_property("injections", sum(outcome.counts.values()))
    record_property("kinds", sum(map(bool, outcome.counts.values())))
    record_property("settled after, s", outcome.verdict.settled)
    assert outcome.verdict.violations == []
    assert min(outcome.counts.values()) > 0, "each kind was done"

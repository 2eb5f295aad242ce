"""Each process is cut off from each server for a while, and answers to commits are lost."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import httpx
import pytest

from app.settings import Settings
from support import checker
from support.api import client_of
from support.polling import eventually
from support.proxy import COMMITS, Mode, Proxy
from support.servers import Servers
from support.stack import BOOT, Stack
from support.trial import FULL, QUICK, Report, Trial

PARTS, ENDS = ("beat", "worker", "api"), ("postgres", "redis")
BACKLOG = 20
MODES = (Mode.REFUSE, Mode.BLACKHOLE, Mode.HALF_OPEN, Mode.SLOW)


class Cables:
    """A proxy for each process and server."""

    def __init__(self, proxies: Mapping[tuple[str, str], Proxy], stack: Stack, servers: Servers) -> None:
        self.proxies = proxies
        self._stack = stack
        self._servers = servers

    def env(self, part: str) -> dict[str, str]:
        """The addresses of the two servers, for this process."""
        ports = {"DATABASE_URL": ("postgres", self._servers.postgres.port)}
        ports["REDIS_URL"] = ("redis", self._servers.redis.port)
        return {
            name: self._stack.environment[name].replace(f":{port}/", f":{self.proxies[part, end].port}/")
            for name, (end, port) in ports.items()
        }


@pytest.fixture
def cables(stack: Stack, servers: Servers) -> Iterator[Cables]:
    ports = {"postgres": servers.postgres.port, "redis": servers.redis.port}
    with ExitStack() as proxies:
        yield Cables(
            {
                (part, end): proxies.enter_context(Proxy(ports[end], delay=0.1))
                for part in PARTS
                for end in ENDS
            },
            stack,
            servers,
        )
        # While they can still reach what they say good-bye to.
        stack.processes.end()


@pytest.fixture
def client(stack: Stack, cables: Cables, settings: Settings) -> Iterator[httpx.Client]:
    """Two beats, of which one is never cut off, a worker and an API that is spoken to."""
    stack.environment.update(QUICK)
    beats = [stack.beat(wait=False), stack.beat(wait=False, env=cables.env("beat"))]
    worker = stack.worker("-P", "threads", wait=False, env=cables.env("worker"))
    api = stack.api(env=cables.env("api"))
    for beat in beats:
        beat.wait_for_output("beat: Starting", BOOT)
    worker.wait_for_output(" ready.", BOOT)
    with client_of(api.url, settings) as connected:
        connected.timeout = httpx.Timeout(20)
        yield connected


def _enqueue(client: httpx.Client, promised: set[str]) -> bool:
    """Ask for a run; True if it was promised."""
    try:
        answer = client.post("/api/v1/tasks/support.instant/runs", json={"args": [1]})
    except httpx.TransportError:
        return False
    assert answer.status_code in (202, 503), answer.text
    if answer.status_code == 202:
        promised.add(answer.json()["id"])
    return answer.status_code == 202


@pytest.mark.timeout(1500)
def test_each_process_cut_off_from_each_server(
    cables: Cables, client: httpx.Client, trial: Trial, seed: int, record_property: Report
) -> None:
    generator = random.Random(seed)
    faults = [(pair, mode) for pair in cables.proxies for mode in MODES]
    if not FULL:
        faults = [(pair, generator.choice(MODES)) for pair in cables.proxies]
    generator.shuffle(faults)
    trial.tick()
    eventually(trial.ledger.ends, 20)
    promised: set[str] = set()
    slowest = dict.fromkeys(ENDS, 0.0)
    for (part, end), mode in faults:
        proxy = cables.proxies[part, end]
        proxy.set(mode)
        trial.go_on(generator.uniform(1, 12) if FULL else 1)
        if part != "api" or mode in (Mode.REFUSE, Mode.SLOW):
            _enqueue(client, promised)
        proxy.set(Mode.PASS)
        began = time.monotonic()
        trial.recovery(20)
        eventually(lambda: _enqueue(client, promised), 20, f"the API after {part}-{end} {mode}")
        slowest[end] = max(slowest[end], time.monotonic() - began)
    trial.stop()
    runs = trial.settle(90)
    record_property("faults", len(faults))
    record_property("latest tick, s", trial.lateness())
    for end, seconds in slowest.items():
        record_property(f"slowest recovery after {end}, s", seconds)
    assert trial.verdict(runs, 8.0) == []
    trial.kept(promised, 40)
    assert slowest["redis"] < (5 if FULL else 10)
    assert slowest["postgres"] < 10


@pytest.mark.timeout(600)
def test_answers_to_commits_are_lost(
    cables: Cables, client: httpx.Client, trial: Trial, seed: int, record_property: Report
) -> None:
    """The commit has happened, and whoever asked for it is told of a broken connection."""
    trial.tick()
    eventually(trial.ledger.ends, 20)
    promised: set[str] = set()
    began = trial.now()
    asked, end = 0, time.monotonic() + (120 if FULL else 8)
    for part in PARTS:
        cables.proxies[part, "postgres"].lose_replies(COMMITS[part], 0.3, seed)
    while time.monotonic() < end:
        # Less than a worker does whose every third commit breaks its connection: no backlog is measured here.
        if trial.waiting() < BACKLOG:
            _enqueue(client, promised)
            asked += 1
    for part in PARTS:
        cables.proxies[part, "postgres"].lose_replies(COMMITS[part], 0, seed)
    lost = {part: cables.proxies[part, "postgres"].lost_replies for part in PARTS}
    record_property("replies lost", lost)
    record_property("requests", asked)
    recovery = trial.recovery(40)
    record_property("recovery, s", recovery)
    trial.stop()
    runs = trial.settle(90)
    record_property("latest tick, s", trial.lateness())
    assert min(lost.values()) >= 2
    assert recovery < 10
    assert trial.verdict(runs) == []
    trial.kept(promised)
    made = {r.id for r in checker.read_runs(trial.url) if r.schedule is None and r.created_at > began}
    assert promised <= made
    assert len(made) <= asked, "a request had two effects"

"""The stack that faults are done to, and what is to be undone again."""

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis
from sqlalchemy.exc import SQLAlchemyError

from support.clock import ShiftedClock
from support.polling import eventually
from support.processes import Process
from support.proxy import Mode, Proxy
from support.servers import Servers
from support.soak.members import VETERAN_QUEUES, Member, cabled
from support.stack import BOOT, Api, Stack
from support.trial import Trial

AGAIN = 0.5
# What the servers answer with while they are away, and what the system does.
AWAY = (psycopg.Error, redis.RedisError, SQLAlchemyError, OSError)
READY = {"beat": "beat: Starting", "worker": " ready."}
THREADS = ("-P", "threads", "-c", "4")
VETERAN = ("-Q", VETERAN_QUEUES)


@dataclass
class Field:
    """All that a fault may touch. ``authorization`` is the header of a user who may do everything."""

    stack: Stack
    servers: Servers
    trial: Trial
    clock: ShiftedClock
    chance: random.Random
    members: list[Member] = field(default_factory=list)
    ended_by_themselves: Counter[str] = field(default_factory=Counter)
    last_words: dict[str, str] = field(default_factory=dict)
    skewed: int = 0
    authorization: str = ""
    callers: random.Random = field(default_factory=random.Random)
    _undo: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    # -- members

    def of(self, *roles: str, mortal: bool = False) -> list[Member]:
        """Those that are alive; ``mortal`` leaves out the veterans."""
        return [
            member
            for member in self.members
            if member.role in roles and member.alive and not (mortal and member.veteran)
        ]

    def pick(self, *roles: str, mortal: bool = False) -> Member | None:
        """One of them, by chance."""
        found = self.of(*roles, mortal=mortal)
        return self.chance.choice(found) if found else None

    def mend(self) -> None:
        """Replace who has ended, as a supervisor does."""
        for member in self.members:
            if member.alive:
                continue
            if not member.expected_to_end:
                status = member.process.popen.returncode
                self.ended_by_themselves[f"{member.role}: {status}"] += 1
                self.last_words[f"{member.name} {member.process.pid} {status}"] = member.process.output()[
                    -20_000:
                ]
            member.bury()
            member.launch(self.chance)
            self.skewed += bool(member.skew)

    # -- what ends again

    def later(self, seconds: float, undo: Callable[[], object]) -> None:
        """Do ``undo`` after this time; if a server is away then, a little later."""
        heapq.heappush(self._undo, (time.monotonic() + seconds, next(self._numbers), undo))

    def undo_due(self, *, everything: bool = False) -> None:
        """Do what is due of it."""
        while self._undo and (everything or self._undo[0][0] <= time.monotonic()):
            _, _, undo = heapq.heappop(self._undo)
            try:
                undo()
            except AWAY:
                self.later(AGAIN, undo)
                if everything:
                    time.sleep(0.1)

    def calm(self) -> None:
        """End all that is under way; everybody is there and ready."""
        self.start_postgres()
        self.start_redis()
        self.undo_due(everything=True)
        for member in self.members:
            member.process.thaw()
            member.failpoints.unlink(missing_ok=True)
            for proxy in member.cables.values():
                proxy.set(Mode.PASS)
                proxy.lose_replies(b"", 0, 0)
        self.ready()

    def ready(self) -> None:
        """Wait until each process has begun its work."""

        def everybody() -> bool:
            self.mend()
            return all(_is_ready(member) for member in self.members)

        eventually(everybody, 2 * BOOT, "every process to be ready")

    # -- the servers, past all cables

    def start_postgres(self) -> None:
        """If it is not there."""
        if not self.servers.is_running("postgres"):
            self.servers.start_postgres()

    def start_redis(self) -> None:
        """If it is not there."""
        if not self.servers.is_running("redis"):
            self.servers.start_redis()

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """A session of an administrator."""
        options = "-c default_transaction_read_only=off -c statement_timeout=10000"
        with psycopg.connect(
            self.trial.url, autocommit=True, connect_timeout=3, options=options
        ) as connection:
            yield connection

    def held(self) -> psycopg.Connection:
        """A session that its user closes."""
        return psycopg.connect(self.trial.url, connect_timeout=3, options="-c statement_timeout=3000")

    @contextmanager
    def broker(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.trial.redis_url, socket_timeout=3, socket_connect_timeout=3) as client:
            yield client

    # -- the service

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response | None:
        """Of any API that is there; None when there was no answer."""
        found = self.of("api")
        if not found:
            return None
        member = self.callers.choice(found)
        headers = {"Authorization": self.authorization, **how.pop("headers", {})}
        try:
            return httpx.request(method, member.url + path, headers=headers, timeout=5, **how)
        except httpx.TransportError:
            return None


def _is_ready(member: Member) -> bool:
    if member.role == "api":
        return "Application startup complete" in member.process.output()
    return READY[member.role] in member.process.output()


@contextmanager
def running_field(
    stack: Stack, servers: Servers, trial: Trial, seed: int, folder: Path, *, small: bool = False
) -> Iterator[Field]:
    """Three beats, three workers and two services, or with ``small`` two, two and one."""
    clock = ShiftedClock(trial.url)
    made = Field(stack, servers, trial, clock, random.Random(seed))
    places: list[tuple[str, str, bool, Callable[..., Process | Api]]] = [
        ("beat-a", "beat", True, stack.beat),
        ("worker-a", "worker", True, partial(stack.worker, *VETERAN)),
        ("api-a", "api", True, stack.api),
        ("beat-b", "beat", False, stack.beat),
        ("worker-b", "worker", False, partial(stack.worker, *THREADS)),
    ]
    if not small:
        places += [
            ("beat-c", "beat", False, stack.beat),
            ("worker-c", "worker", True, partial(stack.worker, *THREADS, *VETERAN)),
            ("worker-d", "worker", False, stack.worker),
            ("api-b", "api", False, stack.api),
        ]
    ports = {"postgres": servers.postgres.port, "redis": servers.redis.port}
    with ExitStack() as proxies:
        for name, role, veteran, start in places:
            cables = {end: proxies.enter_context(Proxy(port, delay=0.05)) for end, port in ports.items()}
            failpoints = folder / f"{name}.failpoints"
            environment = cabled(stack, ports, cables) | {"UPBEAT_FAILPOINTS": f"@{failpoints}"}
            launch = partial(_started, start)
            member = Member(name, role, veteran, launch, environment, cables, failpoints)
            member.launch(made.chance, skewed=0)
            made.members.append(member)
        made.ready()
        yield made
        made.calm()


def _started(start: Callable[..., Process | Api], env: dict[str, str]) -> Process | Api:
    return start(wait=False, env=env)

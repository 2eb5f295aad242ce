"""`enqueue`: requests that make a run, a second, beside what people write today.

Ours is authenticated, limited, audited and durable: the answer comes after the commit. All have as many processes of
uvicorn, and take turns.
"""

from statistics import median
from typing import Any

import psycopg
import redis

from bench.api.load import Load, load
from bench.api.service import RATE_LIMIT, Ours, bare, ours
from bench.api.tasks import NAME
from bench.report import Figure, compare
from support.polling import DeadlinePassed, eventually
from support.servers import Servers

CONNECTIONS = 64
WORKERS = 1
BODY = {"kwargs": {"recipient": "someone@example.org", "attempts": 3}}
PEERS = {"fastapi-apply-async": "/apply-async", "fastapi-bare": "/bare"}
PUBLISHES = "fastapi-apply-async"
OURS = "upbeat"


def measure(servers: Servers, *, quick: bool, peers: list[str]) -> None:
    """Requests a second; what ours answered is counted in the table and in the queue."""
    rounds, seconds = (1, 3.0) if quick else (5, 6.0)
    broker = servers.new_redis_url()
    with ours(servers) as service, bare(broker, WORKERS) as address:
        service.start(WORKERS)
        queue = redis.Redis.from_url(broker)
        found: dict[str, list[Load]] = {name: [] for name in (OURS, *peers)}
        answered = 0
        for number in range(rounds + 1):
            for name, taken in found.items():
                if name == OURS:
                    each = _ours(service, seconds if number else 1)
                    answered += each.answers
                else:
                    each = load(
                        address,
                        PEERS[name],
                        connections=CONNECTIONS,
                        seconds=seconds if number else 1,
                        body=BODY,
                    )
                    if name == PUBLISHES and queue.llen("celery") < each.answers:
                        raise RuntimeError(f"{each.answers} were answered, {queue.llen('celery')} were sent")
                    queue.flushdb()
                # The first one warms up.
                taken.extend([each] if number else [])
        queue.close()
        _check(service, answered, rounds + 1)
    figures = {name: _figure(taken) for name, taken in found.items()}
    own = figures.pop(OURS)
    more = {**own.more, "uvicorn_workers": WORKERS, "rate_limit": RATE_LIMIT}
    compare("api", "enqueue", CONNECTIONS, "requests/s", ours=Figure(own.value, more), peers=figures)


def _ours(service: Ours, seconds: float) -> Load:
    path = f"/api/v1/tasks/{NAME}/runs"
    return load(
        service.url, path, connections=CONNECTIONS, seconds=seconds, headers=service.headers, body=BODY
    )


def _check(service: Ours, answered: int, loads: int) -> None:
    """That what was answered is stored and sent, all of it; wrk does not count what is answered after its time."""
    broker: Any = redis.Redis.from_url(service.settings.broker.url())
    with psycopg.connect(service.database_url, autocommit=True) as connection:
        try:
            eventually(lambda: _count(connection) == broker.llen("celery"), 10, "a message for each run")
        except DeadlinePassed as late:
            late.add_note(
                f"{_count(connection)} stored, {broker.llen('celery')} sent\n{service.output()[-2000:]}"
            )
            raise
        stored = _count(connection)
    broker.close()
    if not answered <= stored <= answered + loads * CONNECTIONS:
        raise RuntimeError(f"{answered} were answered, {stored} are stored")


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM celery_task_runs").fetchone()
    return int(row[0]) if row else 0


def _figure(taken: list[Load]) -> Figure:
    middle = {
        name: round(median(getattr(each, name) for each in taken), 2) for name in ("p50", "p99", "worst")
    }
    return Figure(
        median(each.rate for each in taken),
        {
            **{f"{name}_ms": value for name, value in middle.items()},
            "rounds": [round(each.rate) for each in taken],
        },
    )

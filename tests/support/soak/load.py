"""What people do with the service meanwhile, and what it promised them."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg

from app.scheduling.states import Origin
from support.soak.field import Field

# What a request asks for; `KEY` stands for its own idempotency key, by which its effects are found again.
KEY = object()
REQUESTS: tuple[tuple[str, list[Any], dict[str, Any]], ...] = (
    ("support.instant", [KEY], {}),
    ("support.instant", [KEY], {"options": {"queue": "priority_high"}}),
    ("support.instant", [KEY], {"options": {"queue": "priority_low"}}),
    ("support.instant", [KEY], {"countdown": 2}),
    ("support.nap", [0.3], {}),
    ("support.block", [0.2], {"options": {"on_worker_lost": "retry", "max_attempts": 3}}),
)
DOUBLED = f"""
SELECT args->>0 FROM celery_task_runs
WHERE origin = '{Origin.SUBMIT}' AND task = 'support.instant' GROUP BY 1 HAVING count(*) > 1
"""


@dataclass
class Load:
    """A client that asks ``rate`` times a second, and repeats what was not answered under the same key."""

    subject: Field
    rate: float
    promised: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @contextmanager
    def running(self, seed: int) -> Iterator[None]:
        """In a thread, for the time of the context."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop, random.Random(seed)), name="load")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)

    def doubled(self) -> list[str]:
        """The keys under which more than one run was made."""
        with psycopg.connect(self.subject.trial.url) as connection:
            return [str(key) for (key,) in connection.execute(DOUBLED)]

    def _run(self, stop: threading.Event, chance: random.Random) -> None:
        again: tuple[str, str, dict[str, Any]] | None = None
        while not stop.wait(chance.expovariate(self.rate)):
            key, task, body = again or _request(chance)
            again = (key, task, body)
            began = time.monotonic()
            answer = self.subject.ask(
                "POST", f"/api/v1/tasks/{task}/runs", json=body, headers={"Idempotency-Key": key}
            )
            self.latencies.append(time.monotonic() - began)
            self.answers["none" if answer is None else str(answer.status_code)] += 1
            if answer is not None and answer.status_code == 202:
                self.promised.add(str(answer.json()["id"]))
                again = None


def _request(chance: random.Random) -> tuple[str, str, dict[str, Any]]:
    key = str(UUID(int=chance.getrandbits(128)))
    task, arguments, more = chance.choice(REQUESTS)
    return key, task, {"args": [key if each is KEY else each for each in arguments], **more}

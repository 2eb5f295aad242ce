"""An API process that is killed while it handles requests that make something."""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from uuid import uuid4

import httpx
import pytest

from app.settings import Settings
from support import checker
from support.api import client_of
from support.stack import Api, Stack
from support.trial import FULL, Trial

Report = Callable[[str, object], None]
REQUESTS = 200


@pytest.mark.timeout(400)
def test_a_repeat_under_the_same_key_has_one_effect(
    stack: Stack, trial: Trial, settings: Settings, seed: int, record_property: Report
) -> None:
    """Hundreds are under way when it dies; all of them are repeated at another process."""
    generator = random.Random(seed)
    other = stack.api()
    rounds = 10 if FULL else 1
    unanswered, replayed = 0, 0
    with client_of(other.url, settings) as client, ThreadPoolExecutor(16) as threads:
        for number in range(rounds):
            keys = {f"{number}-{n}": str(uuid4()) for n in range(REQUESTS)}
            doomed = stack.api()
            with httpx.Client(base_url=doomed.url, headers=client.headers, timeout=20) as first:
                fatal = Fatal(first, doomed, generator.randrange(20, REQUESTS - 40))
                before = list(threads.map(fatal.ask, keys, keys.values()))
            after = list(threads.map(partial(_ask, client), keys, keys.values()))
            unanswered += before.count(None)
            replayed += sum(a is not None and a.headers.get("Idempotency-Replayed") == "true" for a in after)
            for mark, old, new in zip(keys, before, after, strict=True):
                assert new is not None
                assert new.status_code in (202, 409), f"{mark}: {new.text}"
                if old is not None and new.status_code == 202:
                    assert old.json()["id"] == new.json()["id"]
    record_property("not answered", unanswered)
    record_property("repeats that found an effect", replayed)
    effects = Counter(str(run.document["args"]) for run in checker.read_runs(trial.url))
    assert unanswered
    assert replayed
    assert set(effects.values()) == {1}
    assert len(effects) == REQUESTS * rounds


class Fatal:
    """Asks an API process, and kills it with the answer of the given number."""

    def __init__(self, client: httpx.Client, api: Api, last: int) -> None:
        self._client, self._api, self._last = client, api, last
        self._answers = count(1)

    def ask(self, mark: str, key: str) -> httpx.Response | None:
        answer = _ask(self._client, mark, key)
        if next(self._answers) == self._last:
            self._api.process.kill()
        return answer


def _ask(client: httpx.Client, mark: str, key: str) -> httpx.Response | None:
    """The answer; None if there was none."""
    try:
        return client.post(
            "/api/v1/tasks/support.instant/runs", json={"args": [mark]}, headers={"Idempotency-Key": key}
        )
    except httpx.TransportError:
        return None

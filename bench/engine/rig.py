"""Our dispatcher in this process, with the real publisher, for looking inside."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from app.db import sync_engine, sync_sessions
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.dispatch import Dispatcher
from app.scheduling.ids import new_id
from app.scheduling.messages import Kind, RunMessage
from app.worker.publisher import CeleryPublisher, envelope
from bench.beats import places
from bench.beats.population import arm_first
from bench.contestants import QUEUE
from bench.engine.field import Field

BATCH = 500
CATALOGUE = Catalogue([TaskSpec(name=places.TASK, path="bench.beats.tasks.task")])


class Rig:
    """A dispatcher on the field's database and broker."""

    def __init__(self, field: Field) -> None:
        from celery import Celery  # noqa: PLC0415 - the measures that need no publisher load no Celery

        self.contestant = field.ours
        settings = field.settings()
        self.engine = sync_engine(settings.database, name="bench-rig")
        self.sessions = sync_sessions(self.engine)
        self.publisher = CeleryPublisher(Celery("bench", broker=settings.broker.url(), set_as_current=False))
        self.beat = Dispatcher(self.sessions, self.publisher, CATALOGUE, settings, name="bench")
        self.publisher.ping()

    def burst(self, due: int) -> float:
        """Fires a second of one burst that is due now."""
        self.arm(due)
        began = time.perf_counter()
        fired = 0
        while claimed := self.beat.fire():
            fired += claimed
        self.beat.settle()
        rate = fired / (time.perf_counter() - began)
        if fired != due or self.contestant.sent() != due:
            raise RuntimeError(f"{fired} of {due} fired, {self.contestant.sent()} sent")
        self.contestant.forget_sent()
        return rate

    def arm(self, due: int) -> None:
        self.contestant.forget_sent()
        arm_first(self.sessions, due, datetime.now(UTC) - timedelta(seconds=2))

    def push_prepared(self, due: int) -> float:
        """Seconds to push as many envelopes, made before, in one pipeline."""
        messages = (RunMessage(new_id(), Kind(places.TASK, QUEUE)) for _ in range(due))
        prepared = [json.dumps(envelope(message, time.time(), "bench")) for message in messages]
        client: Any = self.contestant.broker
        began = time.perf_counter()
        with client.pipeline(transaction=False) as pipeline:
            for first in range(0, due, BATCH):
                pipeline.lpush(QUEUE, *prepared[first : first + BATCH])
            pipeline.execute()
        elapsed = time.perf_counter() - began
        self.contestant.forget_sent()
        return elapsed

    def close(self) -> None:
        self.beat.close()
        self.publisher.close()
        self.engine.dispose()

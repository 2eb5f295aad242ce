"""Runs of a harmless task, sent through every hop: one to each queue, and one by way of a beat.

They take a few seconds at most, and leave nothing but their runs: what has not started in time is cancelled, and the
schedule is deleted.
"""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.cli.doctor.findings import Finding
from app.cli.doctor.hops import Journey, Surroundings, arrived, not_fired, stopped
from app.cli.progress import Tell, working
from app.db.engines import async_engine, async_sessions
from app.errors import Conflict, NotFound
from app.scheduling import inspecting
from app.scheduling.choosing import ScheduleFilter
from app.scheduling.config import RunOptions, RunRequest, ScheduleCreate
from app.scheduling.facade import Scheduler
from app.scheduling.inspecting import KnownBeat, LivingWorker
from app.scheduling.messages import BrokerUnavailable, RunMessage, Survey
from app.scheduling.models import RunRow
from app.scheduling.selecting import RunFilter
from app.scheduling.states import RunState
from app.settings import Settings
from app.worker import catalogue, celery_app
from app.worker.asking import ask
from app.worker.publisher import CeleryPublisher

TASK = "scheduled_task.test_task"
ACTOR = "upbeat doctor"
SCHEDULE = "Canary of upbeat doctor"
MESSAGE = {"message": "A canary of upbeat doctor."}
BEAT_QUEUE = "system"
AHEAD = timedelta(seconds=0.5)
PAUSE = 0.05


class _Watched:
    """A publisher that remembers why it was refused."""

    def __init__(self, publisher: CeleryPublisher) -> None:
        self._publisher = publisher
        self.refused: str | None = None

    def publish(self, messages: Sequence[RunMessage]) -> None:
        try:
            self._publisher.publish(messages)
        except BrokerUnavailable as error:
            # What follows the first refusal is not tried again for a while.
            self.refused = self.refused or str(error).rpartition("caused error: ")[2]
            raise

    def survey(self) -> Survey:
        return self._publisher.survey()

    def discard(self, queues: Sequence[str]) -> int:
        return self._publisher.discard(queues)

    def close(self) -> None:
        self._publisher.close()


@dataclass
class _Flock:
    """The canaries that are under way, by queue, and the schedule of the one that a beat sends."""

    runs: dict[str, UUID]
    schedule: UUID | None = None


def canaries(
    settings: Settings, queues: Collection[str], *, through_beat: bool, patience: float, quiet: bool = True
) -> list[Finding]:
    """Send them to ``queues``, which are not empty, wait up to ``patience`` seconds, and tell what became of each."""
    with working("Canaries that are back:", quiet=quiet) as tell:
        return asyncio.run(_send(settings, queues, tell, through_beat=through_beat, patience=patience))


async def _send(
    settings: Settings, queues: Collection[str], tell: Tell, *, through_beat: bool, patience: float
) -> list[Finding]:
    engine = async_engine(settings.database, name="upbeat-doctor")
    publisher = _Watched(CeleryPublisher(celery_app))
    sessions = async_sessions(engine)
    scheduler = Scheduler(sessions, publisher, catalogue(), settings)
    flock = _Flock({})
    try:
        await _forget_earlier(scheduler)
        for queue in queues:
            body = RunRequest(kwargs=MESSAGE, options=RunOptions(queue=queue))
            flock.runs[queue] = (await scheduler.submit(TASK, body, actor=ACTOR)).id
        if through_beat:
            flock.schedule = await _schedule(scheduler, flock)
        found = await _await(scheduler, flock, patience, tell)
        async with sessions() as session:
            workers = await session.run_sync(inspecting.workers)
            beats = await session.run_sync(inspecting.beats)
            paused = {each.queue: each.paused for each in await session.run_sync(inspecting.queues)}
        late = any(row is None or row.state != RunState.SUCCEEDED for row in found.values())
        lengths, answering = await asyncio.to_thread(_ask_around, publisher) if late else ({}, set[str]())
        around = {
            queue: _surroundings(
                queue,
                workers,
                answering,
                refused=publisher.refused,
                length=lengths.get(queue),
                paused=paused.get(queue),
                patience=patience,
            )
            for queue in {*queues, BEAT_QUEUE}
        }
        alive = _alive(beats, settings.api.ready_beat_age)
        return list(_told(found, around, patience, alive))
    finally:
        await _clear(scheduler, flock)
        publisher.close()
        await engine.dispose()


async def _schedule(scheduler: Scheduler, flock: _Flock) -> UUID:
    # The database's clock, as a run that was just made tells it.
    now = (await scheduler.get_run(max(flock.runs.values()))).created_at
    body = ScheduleCreate.model_validate(
        {
            "task_name": SCHEDULE,
            "task_path": TASK,
            "task_type": "system",
            "schedule": {"type": "one_off", "at": (now + AHEAD).isoformat(), "run_if_past": True},
            "task_kwargs": MESSAGE,
            "task_extra_config": {"queue": BEAT_QUEUE},
        }
    )
    return (await scheduler.create_schedule(body, actor=ACTOR)).row.id


async def _await(
    scheduler: Scheduler, flock: _Flock, patience: float, tell: Tell
) -> dict[str, RunRow | None]:
    """What became of each, by the name of its check."""
    end = time.monotonic() + patience
    found: dict[str, RunRow | None] = {}
    while True:
        for queue, run_id in flock.runs.items():
            found[f"canary to {queue}"] = await scheduler.get_run(run_id)
        if flock.schedule is not None:
            fired = (await scheduler.list_runs(limit=1, which=RunFilter(schedule_id=flock.schedule))).items
            found["canary through beat"] = fired[0] if fired else None
        back = sum(row is not None and RunState(row.state).terminal for row in found.values())
        tell(back, len(found), "")
        if back == len(found) or time.monotonic() > end:
            return found
        await asyncio.sleep(PAUSE)


def _ask_around(publisher: _Watched) -> tuple[Mapping[str, int], set[str]]:
    """How long the queues are, and who answers; nothing when the broker is away."""
    try:
        return publisher.survey().lengths, set(ask("ping"))
    except BrokerUnavailable:
        return {}, set()


def _surroundings(
    queue: str,
    workers: Sequence[LivingWorker],
    answering: Collection[str],
    *,
    refused: str | None,
    length: int | None,
    paused: str | None,
    patience: float,
) -> Surroundings:
    listening = [each for each in workers if queue in each.queues]
    return Surroundings(
        patience,
        refused,
        length,
        [each.name for each in listening],
        answering,
        sum(each.running for each in listening),
        paused,
    )


def _told(
    found: Mapping[str, RunRow | None], around: Mapping[str, Surroundings], patience: float, beats: int
) -> Iterator[Finding]:
    for check, row in found.items():
        if row is None:
            yield not_fired(check, patience, beats=beats)
        elif row.state == RunState.SUCCEEDED:
            yield arrived(check, _journey(row))
        else:
            yield stopped(check, _journey(row), around[row.queue])


def _journey(row: RunRow) -> Journey:
    error: Mapping[str, Any] = row.error or {}
    return Journey(
        queue=row.queue,
        state=row.state,
        reason=row.reason,
        error=str(error["message"]) if "message" in error else None,
        created_at=row.created_at,
        published_at=row.published_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        worker=row.worker,
        fired_for=row.scheduled_for,
    )


def _alive(beats: Sequence[KnownBeat], patience: float) -> int:
    return sum(1 for each in beats if each.age <= patience)


async def _clear(scheduler: Scheduler, flock: _Flock) -> None:
    runs = list(flock.runs.values())
    if flock.schedule is not None:
        with suppress(NotFound):
            await scheduler.delete_schedule(flock.schedule, actor=ACTOR)
        runs += [
            row.id
            for row in (await scheduler.list_runs(limit=5, which=RunFilter(schedule_id=flock.schedule))).items
        ]
    for run_id in runs:
        with suppress(Conflict, NotFound):
            await scheduler.cancel_run(run_id, actor=ACTOR, note="the canary did not come back in time")


async def _forget_earlier(scheduler: Scheduler) -> None:
    """Schedules of examinations that were killed; those of one that is under way are active."""
    for each in (
        await scheduler.list_schedules(limit=100, which=ScheduleFilter(search=SCHEDULE, state="completed"))
    ).items:
        with suppress(NotFound):
            await scheduler.delete_schedule(each.row.id, actor=ACTOR)

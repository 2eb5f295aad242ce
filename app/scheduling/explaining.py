"""Why didn't it run? One query, for any schedule and any instant, also before its creation and after its deletion.

The answer is put together from what is recorded: the run of the tick, the ranges of ticks that were not decided one
by one, the version of the schedule that was in force, its clock, and the last pass of a beat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.scheduling import timing
from app.scheduling.config import ExtraConfig
from app.scheduling.ids import instant_of, tick_id
from app.scheduling.plan import Plan
from app.scheduling.policies import Reason
from app.scheduling.states import RunState


class Verdict(StrEnum):
    """What became of an instant of a schedule."""

    EXECUTED = "executed"
    """Its run was started; the run tells how it ended."""
    QUEUED = "queued"
    """Its run waits: for a worker, for its turn, or for another attempt."""
    NOT_EXECUTED = "not_executed"
    """Its run was decided not to be executed, for the reason that it carries."""
    MISSED = "missed"
    """It lies in a range of ticks that nobody decided one by one, for the reason that the range carries."""
    NOT_A_TICK = "not_a_tick"
    """The schedule, as it was then, does not name this instant."""
    BEFORE_CREATION = "before_creation"
    """The schedule did not exist yet."""
    DELETED = "deleted"
    """The schedule did not exist any more."""
    PAUSED = "paused"
    """It was paused at that time."""
    DISABLED = "disabled"
    """It was disabled at that time."""
    INVALID = "invalid"
    """It could not be understood, or did not fit its task, at that time."""
    COMPLETED = "completed"
    """It had no ticks left at that time."""
    AHEAD = "ahead"
    """It lies in the future."""
    UNDECIDED = "undecided"
    """It is due, and no beat has decided it yet."""
    FORGOTTEN = "forgotten"
    """It lies before the history that is kept."""
    UNRECORDED = "unrecorded"
    """It was a tick of an active schedule, and nothing is recorded of it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer. ``run``, ``missed`` and ``version`` are rows as JSON has them; ticks are those beside the instant,
    by the version that was in force."""

    at: datetime
    verdict: Verdict
    reason: str | None
    explanation: str
    previous_tick: datetime | None
    next_tick: datetime | None
    run: dict[str, Any] | None
    backfilled: list[dict[str, Any]]
    missed: dict[str, Any] | None
    version: dict[str, Any]
    last_beat_pass_at: datetime | None


_FACTS = text("""
SELECT clock_timestamp() AS now,
    (SELECT to_jsonb(v) FROM celery_periodic_task_config_versions v
     WHERE v.schedule_id = :id AND v.changed_at <= :at ORDER BY v.version DESC LIMIT 1) AS version_then,
    (SELECT to_jsonb(v) FROM celery_periodic_task_config_versions v
     WHERE v.schedule_id = :id ORDER BY v.version LIMIT 1) AS first_version,
    (SELECT c.next_run_at FROM celery_periodic_task_clocks c WHERE c.schedule_id = :id) AS next_run_at,
    (SELECT to_jsonb(r) FROM celery_task_runs r WHERE r.id = :tick_id) AS run,
    (SELECT jsonb_agg(to_jsonb(r) ORDER BY r.id) FROM celery_task_runs r
     WHERE r.schedule_id = :id AND r.origin = 'backfill' AND r.scheduled_for = :at) AS backfilled,
    (SELECT to_jsonb(m) FROM celery_task_missed_ranges m
     WHERE m.schedule_id = :id AND m.first <= :at AND m.last >= :at ORDER BY m.recorded_at DESC LIMIT 1) AS missed,
    (SELECT to_jsonb(p) FROM celery_queue_pauses p JOIN celery_task_runs r ON r.queue = p.queue
     WHERE r.id = :tick_id) AS pause,
    (SELECT max(b.last_pass_at) FROM celery_beats b) AS last_pass,
    (SELECT r.id FROM celery_task_runs r ORDER BY r.id LIMIT 1) AS oldest
""")

_EXECUTED = frozenset(
    {RunState.RUNNING, RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT, RunState.LOST}
)
_SUSPENDED = {
    "paused": Verdict.PAUSED,
    "disabled": Verdict.DISABLED,
    "invalid": Verdict.INVALID,
    "completed": Verdict.COMPLETED,
}


def explain(session: Session, schedule_id: UUID, at: datetime) -> Explanation:
    """What became of ``at`` (aware), and why.

    Raises:
        NotFound: there never was a schedule with this id.
    """
    values = {"id": schedule_id, "at": at, "tick_id": tick_id(schedule_id, at)}
    facts = session.execute(_FACTS, values).one()
    if facts.first_version is None:
        raise NotFound("There is no schedule with this id, and never was.")
    version = facts.version_then or facts.first_version
    plan = _plan(version["config"])
    verdict, reason, words = _judge(facts, version, plan, at)
    return Explanation(
        at=at,
        verdict=verdict,
        reason=reason,
        explanation=words,
        previous_tick=None if plan is None else _before(plan, at),
        next_tick=None if plan is None else plan.next_after(at),
        run=facts.run,
        backfilled=facts.backfilled or [],
        missed=facts.missed,
        version=version,
        last_beat_pass_at=facts.last_pass,
    )


def _judge(
    facts: Any, version: Mapping[str, Any], plan: Plan | None, at: datetime
) -> tuple[Verdict, str | None, str]:
    if facts.run is not None:
        return _of_run(facts.run, facts.pause)
    if facts.version_then is None:
        created = facts.first_version["changed_at"]
        return Verdict.BEFORE_CREATION, None, f"The schedule was created later, at {created}."
    if facts.missed is not None and version["action"] != "delete":
        return _of_range(facts.missed)
    return _of_version(version) or _of_tick(facts, plan, at)


def _of_version(version: Mapping[str, Any]) -> tuple[Verdict, str | None, str] | None:
    """None if the schedule was active."""
    if version["action"] == "delete":
        who = f"{version['author']} at {version['changed_at']}"
        return Verdict.DELETED, None, f"The schedule had been deleted by {who}."
    state = version["config"]["state"]
    return (_SUSPENDED[state], state, _of_state(state, version)) if state in _SUSPENDED else None


def _of_tick(facts: Any, plan: Plan | None, at: datetime) -> tuple[Verdict, str | None, str]:
    if plan is None or (not plan.estimated and plan.last_until(at) != at):
        return Verdict.NOT_A_TICK, None, "The schedule, as it was then, has no tick at this instant."
    if at > facts.now:
        return Verdict.AHEAD, None, "It lies in the future."
    if plan.estimated:
        words = "A fixed delay has its ticks when runs have ended, and none was recorded at this instant."
        return Verdict.NOT_A_TICK, None, words
    if facts.next_run_at is not None and facts.next_run_at <= at:
        pass_ = "none has passed yet" if facts.last_pass is None else f"the last passed at {facts.last_pass}"
        return Verdict.UNDECIDED, None, f"No beat has decided it yet: {pass_}. Is a beat running?"
    if facts.oldest is None or at < instant_of(facts.oldest):
        return Verdict.FORGOTTEN, None, "It lies before the oldest run that is kept."
    return Verdict.UNRECORDED, None, "The schedule was active, and nothing is recorded of this tick."


def _of_run(run: Mapping[str, Any], pause: Mapping[str, Any] | None) -> tuple[Verdict, str | None, str]:
    state, reason = run["state"], run["reason"]
    if state in _EXECUTED:
        worker = f" on {run['worker']}" if run["worker"] else ""
        words = f"Its run was started at {run['started_at']}{worker} and is {state}."
        if run["started_at"] is None:
            return Verdict.NOT_EXECUTED, reason, f"Its run is {state}: {reason}."
        return Verdict.EXECUTED, reason, words
    if state == RunState.QUEUED:
        return Verdict.QUEUED, *_of_queued(run, pause)
    return Verdict.NOT_EXECUTED, reason, f"Its run is {state} since {run['finished_at']}: {reason}."


def _of_queued(run: Mapping[str, Any], pause: Mapping[str, Any] | None) -> tuple[str | None, str]:
    if run["blocked_by"]:
        return "overlap", f"Its run waits for the end of run {run['blocked_by']}."
    if pause is not None:
        return Reason.QUEUE_PAUSED, f"Its run waits: {in_paused_queue(pause)}"
    if run["attempt"] > 1:
        return None, f"Attempt {run['attempt']} of its run is due at {run['due_at']}."
    return None, f"Its run waits in the queue {run['queue']} for a worker, since {run['due_at']}."


def in_paused_queue(pause: Mapping[str, Any]) -> str:
    """What there is to say of a run that is queued in a paused queue."""
    return f"the queue {pause['queue']} was paused by {pause['paused_by']} at {pause['paused_at']}: {pause['note']}"


def _of_range(gap: Mapping[str, Any]) -> tuple[Verdict, str | None, str]:
    count = "the ticks" if gap["count"] is None else f"{gap['count']} ticks"
    words = f"One of {count} from {gap['first']} to {gap['last']} that were not decided one by one: {gap['reason']}."
    return Verdict.MISSED, gap["reason"], words


def _of_state(state: str, version: Mapping[str, Any]) -> str:
    since = f"The schedule was {state}, by {version['author']}, since {version['changed_at']}"
    note = version["config"].get("pause_note") or version["config"].get("state_reason")
    return f"{since}: {note}" if note else f"{since}."


def _before(plan: Plan, at: datetime) -> datetime | None:
    tick = plan.last_until(at)
    return tick if tick != at or tick is None else plan.last_until(at - timedelta(microseconds=1))


def _plan(config: Mapping[str, Any]) -> Plan | None:
    try:
        extra = ExtraConfig.model_validate(config["task_extra_config"])
        return extra.plan(timing.parse(config["schedule"]))
    except ValueError:
        return None

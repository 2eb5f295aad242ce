"""A Celery call (`apply_async` and its options) as a run row: what is stored, and when it is due."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery.utils.functional import maybe_list
from sqlalchemy.orm import Session

from app.scheduling import canvas, runs
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunOptions
from app.scheduling.ids import new_id
from app.scheduling.messages import QUEUES, RunMessage
from app.scheduling.walltime import EARLIEST, LATEST
from app.settings import get_settings
from app.worker import codec
from app.worker.execution import Write, current

# Celery's option, and the name under which its message (and our canvas) carries it.
_CARRIED = {
    "link": "callbacks",
    "link_error": "errbacks",
    "chain": "chain",
    "group_id": "group",
    "group_index": "group_index",
    "root_id": "root_id",
    "parent_id": "parent_id",
    "shadow": "shadow",
    "headers": "headers",
    "stamped_headers": "stamped_headers",
    "replaced_task_nesting": "replaced_task_nesting",
}
_LISTS = ("link", "link_error")
# A hundred years. What is due beyond the calendar's end could be stored, and never be read again.
LONGEST = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the ids by which it is known, and how to write it."""

    run_id: UUID
    task_id: str
    write: Write
    ignored: bool


def call(
    spec: TaskSpec,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    task_id: str | None,
    options: Mapping[str, Any],
) -> Call:
    """What `apply_async` with these options means.

    Raises:
        NotStorable: arguments or signatures cannot be written as JSON.
        ValueError: an option has a value that cannot be used.
    """
    run_id = new_id()
    stored_args, stored_kwargs = codec.to_stored(list(args or ())), codec.to_stored(dict(kwargs or {}))
    chosen = RunOptions(
        queue=queue_name(options.get("queue")),
        soft_time_limit=options.get("soft_time_limit"),
        time_limit=options.get("time_limit"),
        concurrency_key=options.get("concurrency_key"),
        concurrency_limit=options.get("concurrency_limit"),
        rate_limit=options.get("rate_limit"),
    )
    due_in, due_at = due(options)
    expires = _expires(options.get("expires"))
    carried = _canvas(task_id, options)
    repeated = False

    def write(session: Session) -> RunMessage | None:
        nonlocal repeated
        if repeated and (row := runs.read(session, run_id)) is not None:
            # The commit was done after all; only its reply was lost.
            return RunMessage.of(
                row.id, row.task, row.queue, row.attempt, row.options, traceparent=row.traceparent
            )
        repeated = True
        if task_id is not None:
            canvas.name_run(session, task_id, run_id)
        message = runs.submit(
            session,
            task=spec,
            args=stored_args,
            kwargs=stored_kwargs,
            options=chosen,
            origin=runs.Origin.CODE,
            redispatch_delay=get_settings().beat.redispatch_delay,
            due_at=due_at,
            due_in=due_in,
            expires=expires,
            run_id=run_id,
            canvas=carried,
        )
        if message is None:
            runs.wake_beats(session, run_id, within=get_settings().beat.max_sleep)
        return message

    return Call(run_id, task_id or str(run_id), write, bool(options.get("ignore_result")))


def due(options: Mapping[str, Any]) -> tuple[float, datetime | None]:
    """`countdown` in seconds, or `eta`; a naive one is UTC, as everywhere in this application's Celery.

    Raises:
        ValueError: it lies beyond what can be waited for.
    """
    countdown = options.get("countdown")
    if countdown is not None:
        return _seconds(countdown, "countdown"), None
    return 0.0, _instant(options.get("eta"), "eta")


def queue_name(queue: Any) -> Any:
    """The name of a queue that is given as kombu's object or as its name.

    Raises:
        ValueError: there is no such queue, so nobody would ever take from it.
    """
    name = getattr(queue, "name", queue)
    if name is not None and name not in QUEUES:
        raise ValueError(f"there is no queue {name!r}; the queues are {', '.join(QUEUES)}")
    return name


def _expires(value: Any) -> datetime | float | None:
    if isinstance(value, int | float):
        return _seconds(value, "expires")
    return _instant(value, "expires")


def _seconds(value: Any, name: str) -> float:
    seconds = max(0.0, float(value))
    if seconds > LONGEST:
        raise ValueError(f"{name} is a hundred years at most")
    return seconds


def _instant(value: Any, name: str) -> datetime | None:
    if value is None:
        return None
    instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    if not EARLIEST <= instant <= LATEST:
        raise ValueError(f"{name} lies beyond the calendar")
    return instant


def _canvas(task_id: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the run row keeps of the options, by the names of `app.scheduling.canvas`."""
    execution = current.get()
    given: dict[str, Any] = {} if task_id is None else {"id": task_id}
    for option, name in _CARRIED.items():
        value = options.get(option)
        if option in _LISTS:
            value = maybe_list(value)
        if value not in (None, [], (), "", 0):
            given[name] = value
    if options.get("group_index") == 0:
        given["group_index"] = 0
    if execution is not None:
        request = execution.request
        given["parent_id"] = request.id
        given["root_id"] = request.root_id or request.id
    if options.get("chord"):
        # The body is kept once, with the chord, not in each part of its header.
        given["chord"] = {"group": options.get("group_id")}
    if options.get("ignore_result"):
        given["ignore_result"] = True
    stamps = {name: options[name] for name in options.get("stamped_headers") or () if name in options}
    if stamps:
        given["stamps"] = stamps
    stored: dict[str, Any] = codec.to_stored(given)
    return stored

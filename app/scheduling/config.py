"""What people write to describe a schedule or a run, typed and closed: unknown keys are refused.

The same models validate the API's bodies, declared schedules and the command line's input.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.errors import FieldError, InvalidInput
from app.scheduling.bounds import Arguments, NamedArguments
from app.scheduling.catalogue import TaskSpec
from app.scheduling.inputs import Instant
from app.scheduling.limiting import RATE
from app.scheduling.plan import Calendar, Jitter, Plan
from app.scheduling.policies import CatchUp, Overlap, Policies, Retry
from app.scheduling.states import Reprocess
from app.scheduling.timing import Timing

QueueName = Literal["system", "priority_high", "priority_low", "celery"]
TaskType = Literal["system", "business", "agent"]

CRONTAB_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_CLOSED = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
Seconds = float
MAX_JITTER = 86_400
MAX_REASON = 1000
_SHARE = re.compile(r"(\d{1,2}(?:\.\d{1,6})?) ?%", re.ASCII)


def _spread(value: object) -> float | str:
    """Seconds as they are, a share as `10%`: one message for a value that is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_JITTER:
        return value
    share = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if share is None or not float(share[1]):
        raise ValueError(
            f'must be seconds, above 0 and at most {MAX_JITTER}, or a share of the period such as "10%", below 100%'
        )
    return f"{share[1]}%"


Spread = Annotated[float | str, BeforeValidator(_spread)]


class RunOptions(BaseModel):
    """How one run is executed. All durations are seconds."""

    model_config = _CLOSED

    queue: QueueName | None = Field(None, description="Queue; the task's own when absent.")
    soft_time_limit: Seconds | None = Field(None, gt=0, le=604_800)
    time_limit: Seconds | None = Field(None, gt=0, le=604_800)
    max_attempts: int | None = Field(None, ge=1, le=100)
    retry_base: Seconds = Field(10.0, gt=0, le=86_400, description="Delay before the second attempt.")
    retry_factor: float = Field(2.0, ge=1, le=10)
    retry_cap: Seconds = Field(600.0, gt=0, le=604_800)
    retry_jitter: float = Field(0.1, ge=0, le=1, description="Share of the delay.")
    on_worker_lost: Literal["fail", "retry"] | None = Field(
        None, description="`fail`: at most once. `retry`: started again when its worker died."
    )
    concurrency_limit: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="How many runs of its key may be running, on all workers together.",
    )
    rate_limit: str | None = Field(
        None,
        pattern=RATE,
        description="How often runs of its key may start: `5/s`, `10/m`, `100/h`, `1000/d`.",
    )
    concurrency_key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What shares the two limits; the task's name when absent.",
    )

    @model_validator(mode="after")
    def _soft_before_hard(self) -> Self:
        if self.soft_time_limit and self.time_limit and self.soft_time_limit >= self.time_limit:
            raise ValueError("soft_time_limit must be smaller than time_limit")
        return self

    def stored(self, task: TaskSpec) -> dict[str, Any]:
        """What a run of ``task`` keeps of these options: the given ones, then the task's; no defaults."""
        given = (
            self.model_dump(
                mode="json", include=set(RunOptions.model_fields) - {"queue"}, exclude_defaults=True
            )
            if self.model_fields_set
            else {}
        )
        own = {
            "soft_time_limit": task.soft_time_limit,
            "time_limit": task.time_limit,
            "max_attempts": task.max_attempts if task.max_attempts > 1 else None,
            "on_worker_lost": task.on_worker_lost if task.on_worker_lost != "fail" else None,
            "concurrency_limit": task.concurrency_limit,
            "rate_limit": task.rate_limit,
            "concurrency_key": task.concurrency_key or task.name,
        }
        stored = {key: value for key, value in own.items() if value is not None} | given
        if "concurrency_limit" not in stored and "rate_limit" not in stored:
            # The key is what makes a run a limited one.
            stored.pop("concurrency_key", None)
        return stored

    def retry(self) -> Retry:
        """The back-off that these options name."""
        return Retry(
            max_attempts=self.max_attempts or 1,
            base=timedelta(seconds=self.retry_base),
            factor=self.retry_factor,
            cap=timedelta(seconds=self.retry_cap),
            jitter=self.retry_jitter,
        )


class ExtraConfig(RunOptions):
    """`task_extra_config`: queue, limits and policies of a schedule. All durations are seconds."""

    overlap: Overlap = Field(Overlap.SKIP, description="What to do with a tick while a run is active.")
    max_concurrent: int | None = Field(None, ge=1, le=10_000, description="With `allow_all`.")
    catch_up: CatchUp = Field(CatchUp.LATEST, description="Which ticks of a downtime run after it.")
    catchup_window: Seconds = Field(3600.0, ge=0, le=30 * 86_400)
    max_catchup_runs: int = Field(100, ge=1, le=1000)
    start_deadline: Seconds | None = Field(3600.0, gt=0, le=30 * 86_400, description="None: no deadline.")
    starts_at: Instant | None = Field(None, description="The first instant at which a tick may lie.")
    ends_at: Instant | None = Field(None, description="The last instant at which a tick may lie.")
    max_runs: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Scheduled runs, then it is completed."
    )
    pause_on_failure: int | None = Field(
        None, ge=1, le=1000, description="Failed runs in a row that pause the schedule."
    )
    jitter: Spread | None = Field(
        None,
        description="Spreads ticks over so many seconds, or over a share of the period, never onto the next tick.",
        examples=[30, "10%"],
    )
    grace: Seconds | None = Field(
        None,
        ge=1,
        le=30 * 86_400,
        description="Counted from each tick's nominal time. When its run is not over by then (not decided, not started"
        " or still running), the schedule is late: an alert, and an event for webhooks.",
    )
    tags: list[Annotated[str, Field(pattern=r"^[\w.:/-]{1,50}$")]] = Field(
        default_factory=list, max_length=20, description="Labels, by which webhooks can choose schedules."
    )
    calendars: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        default_factory=list, max_length=20, description="Names of calendars whose dates are skipped."
    )

    def plan(self, timing: Timing, calendars: Iterable[Calendar] = ()) -> Plan:
        """The evaluator of a schedule with these options; ``calendars`` are those that they name.

        Raises:
            TimingError: the options do not fit the timing.
        """
        return Plan(
            timing=timing,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            calendars=tuple(calendars),
            jitter=self._jitter(),
        )

    def _jitter(self) -> Jitter | None:
        if self.jitter is None:
            return None
        if isinstance(self.jitter, str):
            return Jitter(share=float(f"{self.jitter.removesuffix('%')}e-2"))
        return Jitter(window=timedelta(seconds=self.jitter))

    def policies(self) -> Policies:
        """The pure form, for `app.scheduling.policies.fire`."""
        return Policies(
            overlap=self.overlap,
            max_concurrent=self.max_concurrent,
            catch_up=self.catch_up,
            catchup_window=timedelta(seconds=self.catchup_window),
            max_catchup_runs=self.max_catchup_runs,
            start_deadline=None if self.start_deadline is None else timedelta(seconds=self.start_deadline),
            max_runs=self.max_runs,
            pause_on_failure=self.pause_on_failure,
        )


class ScheduleFields(BaseModel):
    """When a schedule runs, in either of two forms, and what it is for."""

    model_config = _CLOSED

    schedule: dict[str, Any] | None = Field(
        None,
        description="When it runs: a `crontab`, an `interval` or a `one_off`. Either this or `task_crontab_*`.",
        examples=[{"type": "crontab", "expression": "0 */2 * * *", "timezone": "UTC"}],
    )
    task_crontab_minute: str | None = Field(None, max_length=200)
    task_crontab_hour: str | None = Field(None, max_length=200)
    task_crontab_day_of_month: str | None = Field(None, max_length=200)
    task_crontab_month_of_year: str | None = Field(None, max_length=200)
    task_crontab_day_of_week: str | None = Field(None, max_length=200)
    task_crontab_timezone: str | None = Field(None, max_length=64)
    description: str | None = Field(None, max_length=2000)

    def flat(self) -> dict[str, str]:
        """The `task_crontab_*` fields that are given, by the name of the part."""
        given = {part: getattr(self, f"task_crontab_{part}") for part in CRONTAB_FIELDS}
        return {part: value for part, value in given.items() if value is not None}

    def timing(self) -> dict[str, Any] | None:
        """The `schedule` object that these fields name; None when they name none.

        The flat fields are Celery's, so an absent one means `*` and both day fields must match.

        Raises:
            InvalidInput: both forms at once.
        """
        flat = self.flat()
        if not flat:
            if self.task_crontab_timezone is not None:
                raise InvalidInput(
                    FieldError("task_crontab_timezone", "Give at least one task_crontab field with it.")
                )
            return self.schedule
        if self.schedule is not None:
            raise InvalidInput(
                FieldError("schedule", "Give either schedule or the task_crontab fields, not both.")
            )
        for part, value in flat.items():
            if not value.split():
                raise InvalidInput(
                    FieldError(f"task_crontab_{part}", "Must not be empty; leave it out for *.")
                )
        return {
            "type": "crontab",
            "expression": " ".join("".join(flat.get(part, "*").split()) for part in CRONTAB_FIELDS),
            "timezone": self.task_crontab_timezone or "UTC",
            "day_match": "and",
        }


class ScheduleCreate(ScheduleFields):
    """A new schedule."""

    task_name: str = Field(min_length=1, max_length=200, description="A name for people; any script.")
    task_path: str = Field(
        min_length=1, max_length=300, description="Registered name, dotted path or alias of a task."
    )
    task_type: TaskType = "business"
    task_enabled: bool = True
    task_args: Arguments = Field(default_factory=list)
    task_kwargs: NamedArguments = Field(default_factory=dict)
    task_extra_config: ExtraConfig = Field(default_factory=ExtraConfig)


class ScheduleUpdate(ScheduleFields):
    """A change of a schedule: only what is given changes."""

    task_name: str | None = Field(None, min_length=1, max_length=200)
    task_path: str | None = Field(None, min_length=1, max_length=300)
    task_type: TaskType | None = None
    task_enabled: bool | None = None
    task_args: Arguments | None = None
    task_kwargs: NamedArguments | None = None
    task_extra_config: ExtraConfig | None = None
    reason: str | None = Field(
        None, max_length=MAX_REASON, description="Why, for whoever wonders; kept with the version."
    )


class ScheduleDraft(ScheduleFields):
    """When a schedule would run, before it is saved."""

    task_extra_config: ExtraConfig = Field(default_factory=ExtraConfig)


class RunRequest(BaseModel):
    """One run of a task on demand."""

    model_config = _CLOSED

    args: Arguments = Field(default_factory=list)
    kwargs: NamedArguments = Field(default_factory=dict)
    options: RunOptions = Field(default_factory=RunOptions)
    countdown: Seconds | None = Field(None, ge=0, le=31_536_000, description="Seconds until it may start.")


class BackfillRequest(BaseModel):
    """Runs for ticks of the past: those of `(start, end]`."""

    model_config = _CLOSED

    start: Instant = Field(description="Excluded.")
    end: Instant = Field(description="Included; not in the future.")
    reprocess: Reprocess = Field(
        "none",
        description="`none`: only ticks that never ran. `failed`: those whose runs failed, too. `completed`: all.",
    )
    overlap: Literal["buffer_all", "allow_all"] = Field(
        "buffer_all", description="`buffer_all`: one after another. `allow_all`: all at once."
    )
    max_concurrent: int | None = Field(None, ge=1, le=1000, description="How many at a time; 1 when absent.")
    order: Literal["oldest_first", "newest_first"] = "oldest_first"
    dry_run: bool = Field(False, description="Say what would be done, and do nothing.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.start >= self.end:
            raise ValueError("start must lie before end")
        if self.max_concurrent is not None and self.overlap == "allow_all":
            raise ValueError("max_concurrent goes with buffer_all")
        return self

"""What a schedule would do in a period if each of its runs took a given time. Pure.

Ticks are decided by `policies.fire`, as a beat does it, each at its own instant: the simulation knows no downtime, no
busy worker and no failure, so that catch-up, start deadlines and retries have nothing to do in it. What it shows is
how ticks, calendars, limits and overlap policy work together.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from heapq import heappop, heappush
from uuid import UUID

from app.scheduling.plan import Plan
from app.scheduling.policies import Firing, Policies, Reason, fire, with_room

Durations = timedelta | Callable[[datetime], timedelta]

_NOTHING = timedelta(0)
_FAR = datetime.max.replace(tzinfo=UTC)


class Outcome(StrEnum):
    """What becomes of a simulated tick; the names are those of run states."""

    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """One tick and its run. `started_at` and `ended_at` are None for what never started.

    `waited` is the time between `due_at` (nominal time plus jitter) and the start: its turn came no earlier.
    """

    scheduled_for: datetime
    due_at: datetime
    outcome: Outcome
    reason: Reason | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def waited(self) -> timedelta:
        return _NOTHING if self.started_at is None else self.started_at - self.due_at


def simulate(
    plan: Plan,
    policies: Policies,
    schedule_id: UUID,
    start: datetime,
    end: datetime,
    *,
    durations: Durations = _NOTHING,
    limit: int,
) -> list[SimulatedRun]:
    """The ticks of `(start, end]` in their order, the first `limit` at most.

    `durations` is how long runs take, or a function of the nominal time. `max_runs` counts from `start`, at which
    nothing is active. Runs that started before `end` are shown to their end.

    Raises ValueError for a negative duration.
    """
    simulation = _Simulation(plan, policies, schedule_id, durations)
    tick = plan.next_after(start)
    while tick is not None and tick <= end and len(simulation.runs) < limit:
        tick = simulation.decide(tick)
    simulation.finish()
    return [run.result() for run in simulation.runs]


@dataclass(slots=True)
class _Run:
    """A tick whose fate is not settled yet."""

    tick: datetime
    due_at: datetime
    reason: Reason | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def result(self) -> SimulatedRun:
        if self.reason is None:
            outcome = Outcome.SUCCEEDED
        else:
            outcome = Outcome.CANCELLED if self.ended_at is not None else Outcome.SKIPPED
        return SimulatedRun(self.tick, self.due_at, outcome, self.reason, self.started_at, self.ended_at)


class _Simulation:
    """The runs so far. Those active are a heap by their ends (and their numbers, so that ends may be equal)."""

    def __init__(self, plan: Plan, policies: Policies, schedule_id: UUID, durations: Durations) -> None:
        self._plan = plan
        self._policies = policies
        self._schedule_id = schedule_id
        self._durations = durations
        self._active: list[tuple[datetime, int, _Run]] = []
        self._started = 0
        self._waiting: deque[_Run] = deque()
        self._counted = 0
        self.runs: list[_Run] = []

    def decide(self, tick: datetime) -> datetime | None:
        """What becomes of `tick`, and the tick after it."""
        self._end_until(tick)
        most = self._policies.max_runs
        firing = fire(
            self._plan,
            self._policies,
            next_run_at=tick,
            now=tick,
            active=len(self._active),
            waiting=len(self._waiting),
            remaining=None if most is None else most - self._counted,
        )
        if self._make_room(firing, tick):
            firing = with_room(self._plan, firing, tick)
        for decided in firing.ticks:
            run = _Run(tick, self._plan.due_at(self._schedule_id, tick), decided.reason)
            self.runs.append(run)
            if decided.waits:
                self._waiting.append(run)
            elif decided.reason is None:
                self._start(run, run.due_at)
        self._counted += firing.runs
        self._end_until(tick)
        if not firing.awaits_end:
            return firing.next_run_at
        ended = self.runs[-1].ended_at
        return None if ended is None else self._plan.after_end(ended)

    def finish(self) -> None:
        """Let everything end that has been decided."""
        self._end_until(_FAR)

    def _make_room(self, firing: Firing, tick: datetime) -> bool:
        """Whether a run was cancelled that had never started."""
        spared = False
        if firing.replaces_waiting:
            for run in self._waiting:
                run.reason = Reason.REPLACED
            self._counted -= len(self._waiting)
            self._waiting.clear()
        if firing.cancels_active:
            for _, _, run in self._active:
                run.reason = Reason.REPLACED
                if run.started_at is not None and run.started_at > tick:
                    run.started_at = None
                    self._counted -= 1
                    spared = True
                run.ended_at = tick
            self._active = [(tick, number, run) for _, number, run in self._active]
        return spared

    def _end_until(self, instant: datetime) -> None:
        """End what has ended, and let waiting runs have their turn meanwhile."""
        while self._active and self._active[0][0] <= instant:
            ended, _, _ = heappop(self._active)
            if self._waiting and not self._active:
                run = self._waiting.popleft()
                self._start(run, max(ended, run.due_at))

    def _start(self, run: _Run, at: datetime) -> None:
        duration = self._durations(run.tick) if callable(self._durations) else self._durations
        if duration < _NOTHING:
            raise ValueError("a run cannot take less than no time")
        run.started_at, run.ended_at = at, at + duration
        self._started += 1
        heappush(self._active, (run.ended_at, self._started, run))

"""What the domain asks of a broker: wake a worker for a run.

The message names only the run, its task and its attempt; arguments and truth stay in PostgreSQL.
`app.worker.publisher` implements `Publisher` for Celery.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self
from uuid import UUID

QUEUES = ("system", "priority_high", "priority_low", "celery")
DEFAULT_QUEUE = "celery"


class BrokerUnavailable(Exception):
    """The broker did not take the messages; the runs stay queued and are dispatched again."""


class Kind(NamedTuple):
    """What the wake-ups of many runs have in common: task, queue, attempt and limits, in seconds.

    ``restartable``: another worker may start such a run again when its own is lost.
    """

    task: str
    queue: str
    attempt: int = 1
    soft_time_limit: float | None = None
    time_limit: float | None = None
    restartable: bool = False

    @classmethod
    def of(cls, task: str, queue: str, attempt: int, options: Mapping[str, Any]) -> Self:
        """Of stored runs, whose limits are in their options."""
        return cls(
            task,
            queue,
            attempt,
            options.get("soft_time_limit"),
            options.get("time_limit"),
            options.get("on_worker_lost") == "retry",
        )


class RunMessage(NamedTuple):
    """One wake-up: which run, of what kind; ``traceparent`` names who asked for it."""

    run_id: UUID
    kind: Kind
    traceparent: str | None = None

    @classmethod
    def of(
        cls,
        run_id: UUID,
        task: str,
        queue: str,
        attempt: int,
        options: Mapping[str, Any],
        *,
        traceparent: str | None = None,
    ) -> Self:
        """The wake-up of a stored run."""
        return cls(run_id, Kind.of(task, queue, attempt, options), traceparent)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the broker holds: messages by queue, and the mark that stays as long as its data does."""

    lengths: Mapping[str, int]
    mark: str


class Publisher(Protocol):
    """Sends wake-ups, many at once, blocking for a bounded time."""

    def publish(self, messages: Sequence[RunMessage]) -> None:
        """Send all.

        Raises:
            BrokerUnavailable: some or all were not sent; sending one twice does no harm.
        """

    def survey(self) -> Survey:
        """Look at the queues, and leave a mark if there is none.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """

    def discard(self, queues: Sequence[str]) -> int:
        """Drop the messages that lie in these queues; answers how many there were.

        Raises:
            BrokerUnavailable: some or all were not dropped.
        """

"""What the domain asks of a broker: wake a worker for a run.

The message names only the run, its task and its attempt; arguments and truth stay in PostgreSQL.
`app.worker.publisher` implements `Publisher` for Celery.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self
from uuid import UUID

QUEUES = ("system", "priority_high", "priority_low", "celery")
DEFAULT_QUEUE = "celery"


class BrokerUnavailable(Exception):
    """The broker did not take the messages; the runs stay queued and are dispatched again."""


@dataclass(frozen=True, slots=True)
class RunMessage:
    """One wake-up: which run, on which queue; limits in seconds.

    ``restartable``: another worker may start it again when its own is lost.
    """

    run_id: UUID
    task: str
    queue: str
    attempt: int = 1
    soft_time_limit: float | None = None
    time_limit: float | None = None
    restartable: bool = False
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
        """The wake-up of a stored run, whose limits are in its options; ``traceparent`` names who asked for it."""
        return cls(
            run_id,
            task,
            queue,
            attempt,
            options.get("soft_time_limit"),
            options.get("time_limit"),
            options.get("on_worker_lost") == "retry",
            traceparent=traceparent,
        )


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

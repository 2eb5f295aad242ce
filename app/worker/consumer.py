"""Celery's consumer, with an answer for each message that it cannot turn into a run."""

from contextlib import suppress
from functools import partial
from typing import Any

from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from sqlalchemy.exc import SQLAlchemyError

from app.worker import bookkeeping, counters, outcomes, registration
from app.worker.transport import NONSENSE

FIRST_RETRY = 0.5
LONGEST_RETRY = 1.5


def _ensure(connect: Any, *args: Any, callback: Any, **intervals: Any) -> Any:
    """While the broker is looked for, the main loop stands still; but it has not hung."""

    def waiting() -> Any:
        registration.turned()
        return callback()

    return connect(*args, callback=waiting, **intervals)


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """Counts and removes what it refuses; a run of an unknown task is recorded as failed."""

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._refuse(message, "unknown format")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, "invalid message")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._refuse(message, "cannot be decoded")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, "unknown task")
        headers = message.headers
        try:
            outcomes.record_unregistered(headers["id"], headers["task"], (headers.get("retries") or 0) + 1)
        except SQLAlchemyError as error:
            self._log_away(error)

    def ensure_connected(self, conn: Any) -> Any:
        """Look for a broker that is away every few seconds; Celery's pauses grow to half a minute."""
        conn.ensure_connection = partial(
            _ensure,
            conn.ensure_connection,
            interval_start=FIRST_RETRY,
            interval_step=FIRST_RETRY,
            interval_max=LONGEST_RETRY,
        )
        return super().ensure_connected(conn)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        handle = super().create_task_handler(*args, **kwargs)
        connection_errors = self.connection_errors

        def guarded(message: Any) -> Any:
            try:
                return handle(message)
            except Exception as error:
                if isinstance(error, connection_errors) and not isinstance(error, NONSENSE):
                    raise
                # Whatever else a message brings about, the next one must still be read.
                counters.logger.exception("message could not be handled", extra={"action": "message_failed"})
                self._release(message)
                return self._refuse(message, "could not be handled")

        return guarded

    def _release(self, message: Any) -> None:
        """Free the slot that a message took before it turned out to be bad."""
        request = state.requests.get(message.headers.get("id"))
        if request is not None and request.message is message:
            state.task_ready(request)
            with suppress(AttributeError):
                self.controller._quick_release()

    def _refuse(self, message: Any, problem: str) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        counters.refuse(
            problem,
            queue=(message.delivery_info or {}).get("routing_key"),
            task=headers.get("task"),
            run=headers.get("id"),
        )
        message.reject_log_error(counters.logger, self.connection_errors)

    @staticmethod
    def _log_away(error: Exception) -> None:
        counters.logger.warning(
            "run of an unknown task was not recorded, it will be sent again: %s",
            bookkeeping.first_line(error),
            extra={"action": "database_away"},
        )

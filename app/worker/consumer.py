"""Celery's consumer, with an answer for each message that it cannot turn into a run."""

from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from sqlalchemy.exc import SQLAlchemyError

from app.worker import bookkeeping, counters, results

FIRST_RETRY = 0.5
LONGEST_RETRY = 5.0


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
            results.record_unregistered(headers["id"], headers["task"], (headers.get("retries") or 0) + 1)
        except SQLAlchemyError as error:
            self._log_away(error)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        handle = super().create_task_handler(*args, **kwargs)
        connection_errors = self.connection_errors

        def guarded(message: Any) -> Any:
            try:
                return handle(message)
            except connection_errors:
                raise
            except Exception:  # noqa: BLE001
                # Whatever else a message brings about, the next one must still be read.
                counters.logger.exception("message could not be handled", extra={"action": "message_failed"})
                return self._refuse(message, "could not be handled")

        return guarded

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

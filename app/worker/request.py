"""A run as the worker's main process sees it."""

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.utils.saferepr import saferepr
from celery.worker.request import Request as CeleryRequest
from celery.worker.state import task_ready


class Request(CeleryRequest):  # type: ignore[misc]
    """Outlives a run for which memory was short; Celery's own ends the worker, and every other run with it."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The child has recorded a MemoryError as it does any error, and has given back what it held."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if not (return_ok and isinstance(error, MemoryError)):
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        task_ready(self)
        if send_failed_event:
            self.send_event("task-failed", exception=saferepr(error), traceback=exc_info.traceback)
        return None

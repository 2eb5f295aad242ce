"""Celery's application: `async def` tasks, our beat, our result backend, the catalogue of tasks."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from celery.exceptions import Ignore, Reject

from app.scheduling.catalogue import Catalogue
from app.scheduling.messages import DEFAULT_QUEUE
from app.settings import get_settings
from app.worker import (
    bookkeeping,
    bridge,
    capture,
    departure,
    flushing,
    liveness,
    logs,
    measures,
    pools,
    registration,
    results,
    tracing,
    transport,
)
from app.worker.broker import BrokerClient
from app.worker.config import celery_configuration
from app.worker.publisher import CeleryPublisher
from app.worker.specs import spec_of
from app.worker.task import OutcomeWithheld, current_request

__all__ = [
    "Upbeat",
    "app",
    "catalogue",
    "departure",
    "liveness",
    "logs",
    "measures",
    "registration",
    "tracing",
]


class Upbeat(Celery):  # type: ignore[misc]
    """The application behind `celery -A app.worker`."""

    @functools.cached_property
    def Beat(self) -> type:  # noqa: N802 - Celery's name
        """What `celery beat` runs."""
        return self.subclass_with_self("app.worker.beat:Beat")  # type: ignore[no-any-return]

    @functools.cached_property
    def publisher(self) -> CeleryPublisher:
        """What wakes workers."""
        return CeleryPublisher(self)

    @functools.cached_property
    def broker_client(self) -> BrokerClient:
        """The counters' connection."""
        return BrokerClient(self)

    @functools.lru_cache(maxsize=1)  # noqa: B019 - there is one application
    def catalogue(self) -> Catalogue:
        """All tasks of this code, Celery's own left out."""
        self.loader.import_default_modules()
        return Catalogue(spec_of(task) for name, task in self.tasks.items() if not name.startswith("celery."))

    def connection_for_read(self, url: str | None = None, **kwargs: Any) -> Any:
        """Raises ConfigurationError when no broker is set."""
        get_settings().broker.url()
        return super().connection_for_read(url, **kwargs)

    def connection_for_write(self, url: str | None = None, **kwargs: Any) -> Any:
        """Raises ConfigurationError when no broker is set."""
        get_settings().broker.url()
        return super().connection_for_write(url, **kwargs)

    def type_checker(self, fun: Callable[..., Any], bound: bool = False) -> Any:
        """The arguments are those of the function that the user wrote."""
        return super().type_checker(inspect.unwrap(fun), bound=bound)

    def _task_from_fun(self, fun: Callable[..., Any], name: str | None = None, **options: Any) -> Any:
        name = name or self.gen_task_name(fun.__name__, fun.__module__)
        # Celery's own attribute of this name is deprecated, and its router is not asked here.
        options["default_queue"] = options.pop("queue", None) or DEFAULT_QUEUE
        return super()._task_from_fun(self._body(fun, name), name=name, **options)

    @functools.cache  # noqa: B019 - Celery registers a function more than once, and compares by identity
    def _body(self, fun: Callable[..., Any], name: str) -> Callable[..., Any]:
        """``fun`` as a plain function that always has an outcome."""
        call = self._bridged(fun, name) if inspect.iscoroutinefunction(fun) else fun

        @functools.wraps(fun)
        def body(*args: Any, **kwargs: Any) -> Any:
            request = self._tasks[name].request
            run_id = results.run_id_of(request.id)
            try:
                if run_id is None or request.is_eager or request.called_directly:
                    return call(*args, **kwargs)
                with capture.recording(run_id, (request.retries or 0) + 1):
                    return call(*args, **kwargs)
            except (Ignore, Reject) as error:
                raise OutcomeWithheld(
                    f"The task raised {type(error).__name__}, which would leave its run without an outcome;"
                    " return, or raise an error, instead."
                ) from error

        return body

    def _bridged(self, fun: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            task = self._tasks[name]
            request = task.request
            hard, soft = getattr(request, "timelimit", None) or (None, None)
            token = current_request.set(request)
            try:
                return bridge.run_async(
                    fun(*args, **kwargs),
                    soft_time_limit=soft or task.soft_time_limit,
                    time_limit=hard or task.time_limit,
                )
            finally:
                current_request.reset(token)

        return call


@signals.worker_process_shutdown.connect(weak=False)
def _close_child(**_: Any) -> None:
    bridge.shutdown()
    flushing.flusher.close()
    bookkeeping.close()


@signals.worker_shutdown.connect(weak=False)
def _close_main(**_: Any) -> None:
    bridge.shutdown()
    flushing.flusher.close()


pools.register()
transport.register()
app = Upbeat("upbeat", task_cls="app.worker.task:Task", backend="app.worker.results:RunBackend")
app.add_defaults(celery_configuration)
# In every thread, not only in the one that imports this: `AsyncResult(id)` finds its backend there too.
app.set_default()


def catalogue() -> Catalogue:
    """All tasks of this code; imports every module's tasks when first called."""
    return app.catalogue()

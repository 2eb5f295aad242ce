"""Celery's application: `async def` tasks, our beat, our result backend, the catalogue of tasks."""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, Retry

from app.errors import ConfigurationError
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.messages import DEFAULT_QUEUE
from app.settings import get_settings
from app.worker import (
    bookkeeping,
    bridge,
    calls,
    cancellation,
    capture,
    departure,
    execution,
    flushing,
    limits,
    liveness,
    logs,
    measures,
    orphans,
    outcomes,
    pools,
    registration,
    remote,
    tracing,
    transport,
    unflushed,
)
from app.worker.broker import BrokerClient
from app.worker.config import celery_configuration
from app.worker.publisher import CeleryPublisher
from app.worker.task import current_request, refuse_exit, refuse_withheld, send

logger = logging.getLogger(__name__)

__all__ = [
    "Upbeat",
    "app",
    "cancellation",
    "catalogue",
    "departure",
    "liveness",
    "logs",
    "measures",
    "orphans",
    "registration",
    "remote",
    "tracing",
]


class Upbeat(Celery):  # type: ignore[misc]
    """The application behind `celery -A app.worker`."""

    @functools.cached_property
    def Beat(self) -> type:  # noqa: N802 - Celery's name
        """What `celery beat` runs."""
        return self.subclass_with_self("app.worker.beat:Beat")  # type: ignore[no-any-return]

    control_cls = "app.worker.remote:Control"

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
        try:
            self.loader.import_default_modules()
        except ModuleNotFoundError as error:
            if error.name not in get_settings().task.names():
                raise
            raise ConfigurationError(
                f"UPBEAT_TASK_MODULES names {error.name}, which is not found in the working directory or on"
                " PYTHONPATH. Correct it and start again."
            ) from error
        return Catalogue(task.spec() for name, task in self.tasks.items() if not name.startswith("celery."))

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

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """A run of a task by its name, also when it is not registered here; as `Task.apply_async`."""
        task = self.tasks.get(name)
        if task is not None:
            return task.apply_async(args, kwargs, task_id=task_id, **options)
        spec = TaskSpec(name=name, path=name)
        return send(self, calls.call(spec, args, kwargs, task_id, options), options)

    def register_task(self, task: Any, **options: Any) -> Any:
        """A task written as a class; its `run` may be a coroutine function too."""
        task = task() if inspect.isclass(task) else task
        task.name = task.name or self.gen_task_name(type(task).__name__, type(task).__module__)
        task.run = self._body(task.run, task.name)
        return super().register_task(task, **options)

    def _task_from_fun(self, fun: Callable[..., Any], name: str | None = None, **options: Any) -> Any:
        name = name or self.gen_task_name(fun.__name__, fun.__module__)
        # Celery's own attribute of this name is deprecated, and its router is not asked here.
        options["default_queue"] = options.pop("queue", None) or DEFAULT_QUEUE
        return super()._task_from_fun(self._body(fun, name), name=name, **options)

    @functools.cache  # noqa: B019 - Celery registers a function more than once, and compares by identity
    def _body(self, fun: Callable[..., Any], name: str) -> Callable[..., Any]:
        """``fun`` as a plain function that always has an outcome."""
        awaits = inspect.iscoroutinefunction(fun)
        call = self._bridged(fun, name) if awaits else fun

        @functools.wraps(fun)
        def body(*args: Any, **kwargs: Any) -> Any:
            task = self._tasks[name]
            running = execution.of_request(task.request)
            if running is None:
                return call(*args, **kwargs)
            try:
                with (
                    running.body(),
                    capture.recording(running.run_id, running.attempt),
                    limits.watched(self, running, task, awaits=awaits),
                ):
                    return call(*args, **kwargs)
            except (bridge.RunCancelled, TimeLimitExceeded) as error:
                # Final, whatever `autoretry_for` may say.
                outcomes.finish(self, running.run_id, running.attempt, outcomes.outcome_of(error), running)
                raise Ignore(str(error)) from error
            except (Ignore, Reject) as error:
                if running.settled:
                    raise
                refuse_withheld(error)
            except Retry as error:
                if not running.settled:
                    task.give_back(running, error)
                raise
            except Exception:
                raise
            except BaseException as error:  # noqa: BLE001 - it is always raised again, or another one
                refuse_exit(error)

        return body

    def _bridged(self, fun: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            task = self._tasks[name]
            request = task.request
            hard, soft = limits.of(request, task)
            running = execution.of_request(request)
            token = current_request.set(request)
            try:
                return bridge.run_async(
                    fun(*args, **kwargs),
                    soft_time_limit=soft,
                    time_limit=None if liveness.in_pool_child() else hard,
                    key=None if running is None else (running.run_id, running.attempt),
                )
            finally:
                current_request.reset(token)

        return call


@signals.worker_process_shutdown.connect(weak=False)
def _close_child(**_: Any) -> None:
    _close(bridge.shutdown, flushing.flusher.close, unflushed.unflushed.close, bookkeeping.close)


@signals.worker_shutdown.connect(weak=False)
def _close_main(**_: Any) -> None:
    _close(bridge.shutdown, flushing.flusher.close, unflushed.unflushed.close)


def _close(*parts: Callable[[], None]) -> None:
    for close in parts:
        try:
            close()
        except Exception:
            # What is left must be closed all the same.
            logger.exception("something was not closed", extra={"action": "close_failed"})


pools.register()
transport.register()
app = Upbeat("upbeat", task_cls="app.worker.task:Task", backend="app.worker.results:RunBackend")
app.add_defaults(celery_configuration)
# In every thread, not only in the one that imports this: `AsyncResult(id)` finds its backend there too.
app.set_default()


def catalogue() -> Catalogue:
    """All tasks of this code; imports every module's tasks when first called."""
    return app.catalogue()

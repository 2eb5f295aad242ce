"""Who asked for a run: the request's id, and the span as a W3C `traceparent`.

The domain does not know OpenTelemetry: it is told whom to ask. The request's id is what the lines of this context are
about, so a run that is asked for by a run inherits it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from app import logs


@dataclass(frozen=True, slots=True)
class Tracer:
    """What the domain asks of a tracing library: the present span, and to work on behalf of another one."""

    current: Callable[[], str | None]
    resumed: Callable[[str], AbstractContextManager[None]]


_tracers: list[Tracer] = []


def use(tracer: Tracer) -> None:
    """Ask ``tracer`` from now on."""
    _tracers[:] = [tracer]


def current() -> str | None:
    """The span in which this is called; None if there is none, or nobody traces."""
    return _tracers[0].current() if _tracers else None


def request_id() -> str | None:
    """The HTTP request on whose behalf this is called, however far removed; None if there is none."""
    return logs.about().get("request_id")


def resumed(traceparent: str | None) -> AbstractContextManager[None]:
    """What is done inside is part of that span."""
    return nullcontext() if traceparent is None or not _tracers else _tracers[0].resumed(traceparent)

"""Who asked for a run, as a W3C `traceparent`. The domain does not know OpenTelemetry: it is told whom to ask."""

from collections.abc import Callable

Source = Callable[[], str | None]

_sources: list[Source] = []


def use(source: Source) -> None:
    """Ask ``source`` from now on."""
    _sources[:] = [source]


def current() -> str | None:
    """The span in which this is called; None if there is none, or nobody traces."""
    return _sources[0]() if _sources else None

"""The log of a run: its lines, and where a reader of it stands."""

from typing import Final, Literal

from pydantic import ValidationError

from upbeat_sdk._call import Call, segment
from upbeat_sdk._errors import ConnectionFailed, ProblemError, UnexpectedAnswer
from upbeat_sdk._events import Event
from upbeat_sdk._exchange import passing
from upbeat_sdk._generated.models import LogLine

Level = Literal["debug", "info", "warning", "error", "critical"]
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
NO_STREAM: Final = frozenset({404, 405, 406, 501})
POLL: Final = 1.0
FIRST_PAUSE: Final = 0.2
CUTS: Final = 10
# After every line there can be: a stream that tells the end and no lines.
AFTER_ALL: Final = "9999-999999999"


def log_call(run_id: object, level: Level) -> Call:
    """A page of a run's log."""
    return Call("get_run_logs", "GET", f"{_path(run_id)}/logs", query={"level": level, "limit": 200})


def stream_call(run_id: object, after: str | None) -> Call:
    """A run's stream, after the event of this id."""
    headers = {"Last-Event-ID": after}
    return Call("stream_run_logs", "GET", f"{_path(run_id)}/logs/stream", headers=headers)


def _path(run_id: object) -> str:
    return f"/api/v1/runs/{segment('run_id', run_id)}"


class Follower:
    """Reads a log to its end: by stream, by pages where there is none; no line twice.

    ``streams`` is False when pages are read; ``over`` when the stream said that the run is.
    """

    def __init__(self, run_id: object, level: Level) -> None:
        self._run_id = run_id
        self._level = LEVELS.index(level)
        self._last: str | None = None
        self._cuts = 0
        self._place = (0, 0)
        self.streams = True
        self.over = False

    def stream(self) -> Call:
        """The stream, from where it was left."""
        return stream_call(self._run_id, self._last)

    def page(self) -> Call:
        """The log's first page."""
        return log_call(self._run_id, LEVELS[self._level])

    def heard(self, events: list[Event]) -> list[LogLine]:
        """The lines of some events.

        Raises:
            UnexpectedAnswer: a line is not of the expected form.
        """
        lines = []
        for event in events:
            self._cuts = 0
            if event.name == "log":
                self._last = event.id
                lines.append(_line(event))
            self.over = self.over or event.name == "end"
        return [line for line in lines if self._wanted(line)]

    def read(self, line: LogLine) -> bool:
        """Whether a line of a page is new."""
        return _place(line) > self._place and self._wanted(line)

    def rest(self) -> float:
        """Seconds until a stream that ended in good order is opened again: a service ends them now and then."""
        return 0.0 if self.over else FIRST_PAUSE

    def broke(self, error: ConnectionFailed | ProblemError | UnexpectedAnswer) -> float:
        """Seconds until the next try.

        Raises:
            UpbeatError: the error, if trying again is of no use.
        """
        if isinstance(error, ProblemError) and error.status in NO_STREAM:
            self.streams = False
            return 0.0
        self._cuts += 1
        if not passing(error) or self._cuts > CUTS:
            raise error
        return min(FIRST_PAUSE * 2.0**self._cuts, 5.0)

    def _wanted(self, line: LogLine) -> bool:
        self._place = max(self._place, _place(line))
        return line.level not in LEVELS or LEVELS.index(line.level) >= self._level


def _place(line: LogLine) -> tuple[int, int]:
    return line.attempt, line.number


def _line(event: Event) -> LogLine:
    try:
        return LogLine.model_validate_json(event.data)
    except ValidationError:
        raise UnexpectedAnswer(
            "An event of the stream is no log line.", status=200, request_id=None
        ) from None

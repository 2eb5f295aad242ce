"""Everything that this package raises on purpose.

UpbeatError
├── ConfigurationError            no address or credential, or one that cannot be used
├── ConnectionFailed              no answer: refused, cut off
│   └── TimedOut                  no answer in time; whether it was done is not known
├── UnexpectedAnswer              not what the API gives: a proxy's page, another service
├── ProblemError                  the service said no, and why
│   ├── BadRequest           400
│   ├── Unauthenticated      401
│   ├── Forbidden            403
│   ├── NotFound             404
│   ├── Conflict             409
│   ├── PreconditionFailed   412  it was changed by somebody else meanwhile
│   ├── InvalidInput         422  `errors` names the fields
│   ├── TooManyRequests      429
│   └── ServerError          5xx
│       └── Unavailable      503  try again later
├── RunNotSucceeded               `Run.result()` of a run that gave no result
│   ├── RunFailed                 its task raised
│   ├── RunTimedOut               it passed its hard time limit
│   ├── RunLost                   its worker died
│   ├── RunCancelled
│   └── RunNotStarted             expired or skipped: `run.reason` says why
├── ResultTimeout                 the run goes on; also a TimeoutError
└── WebhookRefused                a delivery that is not Upbeat's, was changed, or is too old
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upbeat_sdk._generated.models import Problem, ProblemField, Run


class UpbeatError(Exception):
    """The root of the tree."""


class ConfigurationError(UpbeatError):
    """The client cannot work with what it was given."""


class ConnectionFailed(UpbeatError):
    """There was no answer; the cause is httpx's own error."""


class TimedOut(ConnectionFailed):
    """There was no answer in time. Whether the call was done is not known."""


class UnexpectedAnswer(UpbeatError):
    """Something answered that does not speak as the API does, at least not this version of it."""

    def __init__(self, message: str, *, status: int, request_id: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class ProblemError(UpbeatError):
    """The service refused, with a problem document (RFC 9457).

    ``status`` is HTTP's, ``retry_after`` is in seconds, ``request_id`` finds the call in the
    service's log.
    """

    def __init__(self, problem: "Problem", *, request_id: str | None, retry_after: float | None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.status = problem.status
        self.request_id = request_id or problem.request_id
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        """The stable name of this kind of problem, such as `not_found`."""
        return self.problem.type.rsplit("/", 1)[-1]

    @property
    def errors(self) -> "list[ProblemField]":
        """The wrong fields of an invalid input."""
        return self.problem.errors or []

    def __str__(self) -> str:
        return f"{self.problem.detail} [{self.status} {self.code}, request {self.request_id}]"


class BadRequest(ProblemError):
    """The request could not be read."""


class Unauthenticated(ProblemError):
    """No credential, or one that is not valid."""


class Forbidden(ProblemError):
    """A valid credential that may not do this."""


class NotFound(ProblemError):
    """What was named does not exist."""


class Conflict(ProblemError):
    """The state of what was named does not allow this."""


class PreconditionFailed(ProblemError):
    """It has another version than the one that `if_match` names."""


class InvalidInput(ProblemError):
    """The input was understood and is wrong; ``errors`` names the fields. Nothing was changed."""


class TooManyRequests(ProblemError):
    """Ask less often; ``retry_after`` says when again."""


class ServerError(ProblemError):
    """The service failed."""


class Unavailable(ServerError):
    """A part that this needs cannot be reached now; the same call may work later."""


class RunNotSucceeded(UpbeatError):
    """The run is over and has no result. ``run`` has its state, reason and error."""

    def __init__(self, run: "Run") -> None:
        super().__init__(f"{run.task} ({run.id}) {_explained(run)}")
        self.run = run


class RunFailed(RunNotSucceeded):
    """Its task raised; ``run.error`` has the type and the message."""


class RunTimedOut(RunNotSucceeded):
    """It passed its hard time limit."""


class RunLost(RunNotSucceeded):
    """Its worker died."""


class RunCancelled(RunNotSucceeded):
    """It was cancelled."""


class RunNotStarted(RunNotSucceeded):
    """It was decided not to run; ``run.reason`` says why."""


class ResultTimeout(UpbeatError, TimeoutError):
    """The run was not over in time, and goes on. ``run`` is how it stood last."""

    def __init__(self, run: "Run", seconds: float) -> None:
        super().__init__(f"{run.task} ({run.id}) is {run.state} after {seconds:g} s, and goes on")
        self.run = run


PROBLEMS: dict[int, type[ProblemError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    422: InvalidInput,
    429: TooManyRequests,
    503: Unavailable,
}

OUTCOMES: dict[str, type[RunNotSucceeded]] = {
    "failed": RunFailed,
    "timed_out": RunTimedOut,
    "lost": RunLost,
    "cancelled": RunCancelled,
    "expired": RunNotStarted,
    "skipped": RunNotStarted,
}


def _explained(run: "Run") -> str:
    error: dict[str, Any] = run.error or {}
    why = error.get("message") or run.reason
    return f"{run.state}: {why}" if why else run.state


class WebhookRefused(UpbeatError):
    """The delivery is not signed with the secret, or is too old or from the future: answer it with 400."""

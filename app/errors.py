"""The error tree: each class has a stable code, an HTTP status, and a message that says what to do.

    UpbeatError
    ├── ConfigurationError          500  configuration
    ├── Unauthenticated             401  unauthenticated
    ├── Forbidden                   403  forbidden
    ├── NotFound                    404  not_found
    ├── Conflict                    409  conflict
    ├── PreconditionFailed          412  precondition_failed
    ├── InvalidInput                422  invalid_input   (names the fields)
    ├── PreconditionRequired        428  precondition_required
    ├── TooManyRequests             429  too_many_requests   (says when to try again)
    └── Unavailable                 503  unavailable

Errors know nothing of HTTP beyond their status number; `app.api.problems` gives them their form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of an input.

    ``field`` is a dotted path in the caller's own document (``task_extra_config.queue``);
    ``message`` says what is wrong and what would be right, without repeating the value.
    """

    field: str
    message: str


class UpbeatError(Exception):
    """The root: a problem that the caller is told about."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ConfigurationError(UpbeatError):
    """The process cannot run with the settings that it was given."""

    code = "configuration"
    title = "The service is not configured"


class Unauthenticated(UpbeatError):
    """No credential, or one that is not valid."""

    code = "unauthenticated"
    status = 401
    title = "You are not logged in"


class Forbidden(UpbeatError):
    """A valid credential that may not do this."""

    code = "forbidden"
    status = 403
    title = "You may not do this"


class NotFound(UpbeatError):
    """What was named does not exist."""

    code = "not_found"
    status = 404
    title = "Not found"


class Conflict(UpbeatError):
    """The state of what was named does not allow this."""

    code = "conflict"
    status = 409
    title = "The current state does not allow this"


class PreconditionFailed(UpbeatError):
    """What was named is no longer as the caller has seen it; nothing was changed."""

    code = "precondition_failed"
    status = 412
    title = "It was changed in the meantime"


class InvalidInput(UpbeatError):
    """The input was understood and is wrong; nothing was changed."""

    code = "invalid_input"
    status = 422
    title = "The input is not valid"

    def __init__(self, errors: Sequence[FieldError] | FieldError) -> None:
        self.errors: tuple[FieldError, ...] = (errors,) if isinstance(errors, FieldError) else tuple(errors)
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in self.errors))


class PreconditionRequired(UpbeatError):
    """The caller must say which version it means to change."""

    code = "precondition_required"
    status = 428
    title = "Say which version you mean"


class TooManyRequests(UpbeatError):
    """The caller is too fast; ``retry_after`` is the number of whole seconds to wait."""

    code = "too_many_requests"
    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = max(1, retry_after)


class Unavailable(UpbeatError):
    """A part that this needs cannot be reached now; the same call may work later."""

    code = "unavailable"
    status = 503
    title = "Temporarily unavailable"

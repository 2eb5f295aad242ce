"""What may go wrong with an agent. `retryable` tells the run whether another attempt makes sense, and `retry_after`
not before how many seconds.

AgentError
├── AgentUnreachable    no connection, or no answer within the time limit      retryable
├── AgentOverloaded     it answered 429                                        retryable
├── AgentBroken         it answered 5xx                                        retryable
├── AgentRefused        it answered with a redirect or another 4xx
├── AgentUnauthorized   it answered 401 or 403: the credential is wrong
├── ReplyUnusable       it answered, and the answer is too large or cannot be read
├── BudgetExhausted     the day's calls or tokens are used up
├── BudgetReserved      what is left of them is reserved for calls under way    retryable
└── AgentDisabled       somebody disabled it
"""

from typing import ClassVar

from app.errors import UpbeatError


class AgentError(UpbeatError):
    """``ails``: the agent itself is at fault, so this counts against its health."""

    code = "agent_error"
    status = 502
    title = "The agent could not be used"
    retryable: ClassVar[bool] = False
    ails: ClassVar[bool] = False

    def __init__(self, detail: str, *, answered: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.answered = answered
        self.retry_after = retry_after


class AgentUnreachable(AgentError):
    """No connection, or no answer in time. ``sent``: the request may have reached it."""

    code = "agent_unreachable"
    retryable = True
    ails = True

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.sent = sent


class AgentOverloaded(AgentError):
    """It asks for fewer requests."""

    code = "agent_overloaded"
    retryable = True


class AgentBroken(AgentError):
    """It failed on its side."""

    code = "agent_broken"
    retryable = True
    ails = True


class AgentRefused(AgentError):
    """It does not take this request, and would not take it a second time."""

    code = "agent_refused"


class AgentUnauthorized(AgentRefused):
    """It does not take this credential."""

    code = "agent_unauthorized"
    ails = True


class ReplyUnusable(AgentError):
    """The answer cannot be used."""

    code = "agent_reply_unusable"
    ails = True


class BudgetExhausted(AgentError):
    """The day's budget does not suffice for this call."""

    code = "agent_budget_exhausted"
    status = 409


class BudgetReserved(AgentError):
    """What is left of the day's budget is reserved for calls under way, which may give some back."""

    code = "agent_budget_reserved"
    status = 409
    retryable = True


class AgentDisabled(AgentError):
    """It takes no calls until it is enabled."""

    code = "agent_disabled"
    status = 409

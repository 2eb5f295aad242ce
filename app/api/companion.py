"""What a request commits with its change: its line in the audit, and the key that makes it safe to repeat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from sqlalchemy.orm import Session
from starlette.types import Scope

from app.api.guards import SAFE, Guard, resource_of
from app.api.problems import REQUEST_ID
from app.db.companions import Changes
from app.modules.audit import service as audit
from app.modules.auth.service import Principal, Role
from app.modules.idempotency import service as idempotency

Render = Callable[[Any], idempotency.Answer | None]


@dataclass(slots=True)
class RequestCompanion:
    """Empty until the caller is known; joins the first transaction that changes something."""

    entry: audit.Entry | None = None
    claim: idempotency.Claim | None = None
    render: Render | None = None
    answered: bool = False
    done: bool = False
    in_parts: bool = False
    forgetful: bool = False

    @property
    def waiting(self) -> bool:
        """Whether the caller is known, and nothing is recorded yet, or there are further parts to record."""
        return self.entry is not None and (self.in_parts or not self.done)

    def joined(self) -> None:
        """It is recorded."""
        self.done = True

    def join(self, session: Session, result: object, changes: Changes) -> None:
        """Commit both with the change.

        Raises:
            idempotency.KeyTaken: another request with this key has committed first.
        """
        if self.entry is None:
            return
        for claim, answer in self._claims(result):
            idempotency.claim(session, claim, answer)
        audit.record(session, _with(self.entry, changes, result))

    @classmethod
    def join_many(cls, session: Session, calls: Sequence[tuple[Any, object]]) -> None:
        """As `join`, in one statement for all keys and one for all entries.

        Raises:
            idempotency.KeyTaken: one of them is taken, or occurs twice; nothing is to be committed.
        """
        claims = [claim for companion, result in calls for claim in companion._claims(result)]  # noqa: SLF001 - its own
        if claims:
            idempotency.claim_many(session, claims)
        audit.record_many(session, [_with(companion.entry, {}, result) for companion, result in calls])

    def _claims(self, result: object) -> list[tuple[idempotency.Claim, idempotency.Answer | None]]:
        """The key to be claimed, if there is one, with the answer if it is known by now."""
        if self.claim is None or self.done:
            return []
        if self.forgetful:
            self.answered = True
            return [(self.claim, None)]
        known = self.render is not None and result is not None
        answer = self.render(result) if self.render is not None and known else None
        if known and answer is None:
            self.claim = None
            return []
        self.answered = known
        return [(self.claim, answer)]


def companion_of(scope: Scope) -> RequestCompanion:
    """The companion of this request."""
    found: RequestCompanion = scope["state"].setdefault("companion", RequestCompanion())
    return found


def arm(request: Request, guard: Guard, caller: Principal) -> None:
    """From here on the request is its caller's: what it changes is recorded as theirs."""
    if request.method in SAFE or guard.role is None or (guard.role is Role.VIEWER and not guard.interactive):
        return
    parameters = list(request.path_params.values())
    companion_of(request.scope).entry = audit.Entry(
        actor=caller.username,
        actor_id=caller.id,
        means=caller.means,
        credential_id=caller.credential_id,
        action=request.scope["endpoint"].__name__,
        object_type=resource_of(request),
        object_id=str(parameters[0]) if parameters else None,
        request_id=request.scope["state"].get(REQUEST_ID),
        address=request.client.host if request.client else None,
    )


def in_parts(request: Request) -> None:
    """What this request changes is committed in several transactions: each is recorded with its own changes."""
    companion_of(request.scope).in_parts = True


def only_looks(request: Request) -> None:
    """This request changes nothing, whatever its method is: a dry run. Nothing is recorded, no key is used up."""
    companion = companion_of(request.scope)
    companion.entry = companion.claim = None


def _with(entry: audit.Entry, changes: Changes, result: object) -> audit.Entry:
    made = None if entry.object_id is not None else audit.id_of(result)
    if made is None and not changes:
        return entry
    return replace(entry, changes=changes, object_id=entry.object_id if made is None else str(made))

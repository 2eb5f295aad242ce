"""What follows from the end of a run: callbacks, the rest of a chain, errbacks, the body of a chord.

All of it is written by the transaction that ends the run: `Consequences` belongs to one transaction,
whose `messages` are published after its commit and whose `inline` errbacks are called then. Signatures
are turned into rows by Celery's own canvas code, with its calls collected.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from celery.app.task import Context
from celery.canvas import _chain, _chord, group, signature
from celery.exceptions import ChordError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.scheduling import canvas, runs
from app.scheduling.messages import RunMessage
from app.scheduling.policies import Reason
from app.scheduling.refusals import refuses_values
from app.scheduling.runs import Outcome, RunState
from app.worker import codec, errors
from app.worker.execution import Write, collecting

logger = logging.getLogger(__name__)

Errback = Callable[[], object]


class Consequences:
    """Draws the consequences of ended runs in one transaction."""

    def __init__(self, app: Any, session: Session) -> None:
        self._app = app
        self._session = session
        self.messages: list[RunMessage] = []
        self.inline: list[Errback] = []

    def of_success(self, document: Mapping[str, Any], successors: Sequence[Write]) -> None:
        """The run of this canvas succeeded; ``successors`` are its callbacks and the rest of its chain."""
        self._do(successors)
        self._part_ended(document)

    def of_failure(
        self, document: Mapping[str, Any], task_id: str, error: Mapping[str, Any] | None, request: Any = None
    ) -> None:
        """The run of this canvas ended in another way, and nothing of it will be tried again."""
        error = error or {"type": "TaskRevokedError", "message": "It did not run.", "traceback": None}
        self._tell(document.get("errbacks"), task_id, error, request)
        # Celery keeps the next step at the end.
        for step in reversed(document.get("chain") or ()):
            self._abandon(step, error)
        self._part_ended(document)

    def sweep(self) -> None:
        """Draw what others left open: runs ended by someone who cannot read a canvas, chords not fired."""
        for run_id in canvas.unpaid(self._session):
            # Whatever comes of it, it is marked as paid, so that it is not found again.
            canvas.paid(self._session, run_id)
            self._apart(partial(self._of_row, run_id), f"what run {run_id} owes")
        for group_id in canvas.complete_chords(self._session):
            chord = canvas.fire(self._session, group_id)
            what = f"the body of chord {group_id}"
            if chord is not None and not self._apart(partial(self._fire, chord), what):
                body = signature(codec.from_stored(chord.body), app=self._app)
                error = errors.error_of(ChordError("The database refuses the call of its body."))
                self._apart(partial(self._abandon, body, error, tell=True), what)

    def _apart(self, work: Callable[[], None], what: str) -> bool:
        """Do ``work`` so that those behind it go on if the database refuses what it writes; False if it does."""
        messages, inline = len(self.messages), len(self.inline)
        try:
            with self._session.begin_nested():
                work()
        except DBAPIError as error:
            if not refuses_values(error):
                raise
            logger.exception("%s is refused", what, extra={"action": "canvas_refused"})
            del self.messages[messages:], self.inline[inline:]
            return False
        return True

    def _of_row(self, run_id: UUID) -> None:
        row = runs.read(self._session, run_id)
        if row is None:
            return
        try:
            document = codec.from_stored(row.canvas or {})
            task_id = str(document.get("id", row.id))
            if row.state == RunState.SUCCEEDED:
                self._part_ended(document)
            else:
                request = Context({**document, "id": task_id, "task": row.task, "errbacks": []})
                self.of_failure(
                    document, task_id, row.error or errors.revoked(row.reason or row.state), request
                )
        except SQLAlchemyError:
            raise
        except Exception:
            logger.exception("what run %s owes cannot be drawn", run_id)

    def _do(self, writes: Iterable[Write]) -> None:
        for write in writes:
            message = write(self._session)
            if message is not None:
                self.messages.append(message)

    def _part_ended(self, document: Mapping[str, Any]) -> None:
        if document.get("chord"):
            self._count(document["chord"].get("group") or document.get("group"))

    def _count(self, group_id: str | None) -> None:
        chord = None if group_id is None else canvas.count_part(self._session, group_id)
        if chord is not None:
            self._fire(chord)

    def _fire(self, chord: canvas.Chord) -> None:
        body = signature(codec.from_stored(chord.body), app=self._app)
        try:
            values = self._values(chord.header)
            with collecting() as writes:
                body.apply_async((values,))
        except ChordError as error:
            self._abandon(body, errors.error_of(error), tell=True)
        except Exception as error:
            logger.exception("the body of chord %s cannot be called", chord.group_id)
            self._abandon(body, errors.error_of(ChordError(f"Callback error: {error!r}")), tell=True)
        else:
            self._do(writes)

    def _values(self, header: Sequence[Any]) -> list[Any]:
        """The results of the header, in its order and shape.

        Raises:
            ChordError: a part did not succeed.
        """
        rows = canvas.read_many(self._session, list(_ids(header)))

        def value(result: Any) -> Any:
            (task_id, _), members = result
            if members is not None:
                return [value(member) for member in members]
            row = rows.get(task_id)
            if row is None:
                raise ChordError(f"Dependency {task_id} is not known")
            if row.state != RunState.SUCCEEDED:
                failure = errors.exception_of(row.state, row.error, row.reason)
                raise ChordError(f"Dependency {task_id} raised {failure!r}")
            return codec.from_stored(row.result)

        return [value(result) for result in header]

    def _abandon(self, sig: Any, error: Mapping[str, Any], *, tell: bool = False) -> None:
        """Nothing of ``sig`` will run: its results fail with ``error``, and what waits for them goes on."""
        sig = signature(sig, app=self._app)
        options = sig.options
        if isinstance(sig, group | _chain):
            for place, member in enumerate(sig.tasks):
                # Of a chain, only the first step was about to run.
                self._abandon(member, error, tell=tell and (place == 0 or isinstance(sig, group)))
        elif isinstance(sig, _chord):
            if sig.body is not None:
                self._abandon(sig.body, error, tell=tell)
        else:
            if options.get("task_id"):
                canvas.abandon(
                    self._session, options["task_id"], sig.task, error, Reason.UPSTREAM_FAILED.value
                )
            if options.get("chord"):
                self._count(options.get("group_id"))
        if tell:
            self._tell(options.get("link_error"), str(options.get("task_id")), error)
        for step in reversed(options.get("chain") or ()):
            self._abandon(step, error)

    def _tell(self, errbacks: Any, task_id: str, error: Mapping[str, Any], request: Any = None) -> None:
        """Send the errbacks that take a task id, and keep for later those that take the exception."""
        if not errbacks:
            return
        try:
            self._call_back(errbacks, task_id, error, request)
        except SQLAlchemyError:
            raise
        except Exception:
            # What follows a run must never undo how it ended.
            logger.exception(
                "the errbacks of %s cannot be called", task_id, extra={"action": "errback_failed"}
            )

    def _call_back(self, errbacks: Any, task_id: str, error: Mapping[str, Any], request: Any) -> None:
        sent = []
        for each in errbacks if isinstance(errbacks, list | tuple) else [errbacks]:
            sig = signature(each, app=self._app)
            sig._app = sig._app or self._app
            if self._takes_exception(sig):
                context = request if request is not None else Context({"id": task_id, "errbacks": []})
                exception = errors.exception_of(RunState.FAILED, error, None)
                self.inline.append(partial(sig, context, exception, error.get("traceback")))
            else:
                sent.append(sig)
        if sent:
            with collecting() as writes:
                group(sent, app=self._app).apply_async((task_id,), parent_id=task_id, root_id=task_id)
            self._do(writes)

    def _takes_exception(self, errback: Any) -> bool:
        # Celery's own rule: bound tasks and those of one argument are sent, others are called.
        try:
            header = errback.type.__header__
        except (KeyError, AttributeError):
            return False
        return not isinstance(header, partial) and bool(self._app.backend._errback_arity_greater(errback, 1))


def call_inline(errbacks: Iterable[Errback]) -> None:
    """Call the errbacks that want the exception; what they raise is logged."""
    for errback in errbacks:
        try:
            errback()
        except Exception:
            logger.exception("an errback raised", extra={"action": "errback_failed"})


def draw(
    app: Any,
    session: Session,
    run_id: UUID,
    outcome: Outcome,
    *,
    document: Mapping[str, Any],
    successors: Sequence[Write],
    request: Any,
) -> Consequences:
    """The consequences of a run that has just ended in this transaction."""
    consequences = Consequences(app, session)
    children = [] if request is None else [child.as_tuple() for child in request.children]
    if outcome.reason is Reason.TASK_REPLACED:
        consequences._do(successors)
    elif outcome.state is RunState.SUCCEEDED:
        consequences.of_success(document, successors)
    else:
        task_id = str(document.get("id", run_id))
        consequences.of_failure(document, task_id, outcome.error, request)
    if children:
        canvas.add_children(session, run_id, codec.to_stored(children))
    if any(document.get(name) for name in canvas.OWING):
        canvas.paid(session, run_id)
    return consequences


def _ids(results: Iterable[Any]) -> Iterable[str]:
    for (task_id, _), members in results:
        if members is None:
            yield task_id
        else:
            yield from _ids(members)

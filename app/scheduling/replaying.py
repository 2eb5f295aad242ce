"""Running again what has ended: a new run with `replay_of`, with the same arguments or other ones."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import Conflict
from app.scheduling import runs
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import RunOptions
from app.scheduling.messages import RunMessage
from app.scheduling.states import Origin, RunState


def replay(
    session: Session,
    catalogue: Catalogue,
    run_id: UUID,
    *,
    new_id: UUID,
    actor: str,
    redispatch_delay: float,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> RunMessage | None:
    """A new run under ``new_id`` with the options of an ended one, due now; what followed the old one does not
    follow this one. None for ``args`` or ``kwargs`` keeps the old ones.

    Raises:
        NotFound: there is no such run.
        Conflict: it has not ended, or its task is not registered any more.
        InvalidInput: the task cannot be called with the other arguments.
    """
    row = runs.require(session, run_id)
    if not RunState(row.state).terminal:
        raise Conflict(f"The run is {row.state}. Wait for its end, or cancel it, and replay it then.")
    task = catalogue.find(row.task)
    if task is None:
        raise Conflict("No task of this name is registered any more; GET /api/v1/tasks lists them.")
    chosen_args, chosen_kwargs = row.args if args is None else args, row.kwargs if kwargs is None else kwargs
    if args is not None or kwargs is not None:
        task.require_fit(chosen_args, chosen_kwargs, prefix="")
    related = row.schedule_id is not None and row.schedule_version is not None
    return runs.submit(
        session,
        task=task,
        args=chosen_args,
        kwargs=chosen_kwargs,
        options=RunOptions.model_validate(row.options),
        origin=Origin.REPLAY,
        redispatch_delay=redispatch_delay,
        requested_by=actor,
        run_id=new_id,
        schedule=(row.schedule_id, row.schedule_version) if related else None,  # type: ignore[arg-type]
        queue=row.queue,
        replay_of=row.id,
        scheduled_for=row.scheduled_for,
    )

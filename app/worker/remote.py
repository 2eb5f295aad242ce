"""Celery's remote control, mapped onto the run table: `revoke` and `terminate` cancel runs."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from celery.app.control import Control as CeleryControl
from celery.utils.functional import maybe_list
from celery.worker.control import control_command, ok
from sqlalchemy.orm import Session

from app.scheduling import cancelling, canvas
from app.scheduling.states import RunState
from app.worker import bookkeeping


def cancel(task_ids: Iterable[str], *, force: bool, by: str) -> list[str]:
    """Cancel the runs that those task ids mean; answers the ids of those that were not over."""
    return [
        task_id
        for task_id in map(str, task_ids)
        if bookkeeping.transact(partial(_cancel, task_id=task_id, force=force, by=by))
    ]


def _cancel(session: Session, *, task_id: str, force: bool, by: str) -> RunState | None:
    run_id = canvas.resolve(session, task_id)
    return None if run_id is None else cancelling.cancel(session, run_id, force=force, by=by)


class Control(CeleryControl):  # type: ignore[misc]
    """`app.control`, whose `revoke` needs no worker to be there."""

    def revoke(
        self,
        task_id: Any,
        destination: Any = None,
        terminate: bool = False,
        signal: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Cancel runs: queued ones never start, running ones are asked to stop, with ``terminate`` made to."""
        found = cancel(maybe_list(task_id) or [], force=terminate, by="revoke")
        return (
            [{"upbeat": ok(f"tasks {', '.join(found)} flagged as revoked")}] if kwargs.get("reply") else None
        )

    def terminate(self, task_id: Any, destination: Any = None, signal: Any = None, **kwargs: Any) -> Any:
        """As `revoke` with ``terminate``."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)


@control_command(
    name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]", args=[("task_id", str)]
)
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> Any:
    """Cancel runs by task id (or list of ids)."""
    found = cancel(maybe_list(task_id) or [], force=terminate, by="celery control")
    return ok(f"tasks {', '.join(found) or 'unknown'} flagged as revoked")


@control_command(
    name="terminate",
    variadic="task_id",
    args=[("signal", str), ("task_id", str)],
    signature="<signal> [id1 [id2 [... [idN]]]]",
)
def terminate(state: Any, signal: Any, task_id: Any, **kwargs: Any) -> Any:
    """Stop runs by task id (or list of ids) without grace."""
    return revoke(state, task_id, terminate=True)

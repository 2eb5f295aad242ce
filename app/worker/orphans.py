"""Runs whose process is gone although their worker lives and keeps its lease.

Mostly the main process hears at once that a child is gone, and with it what that executed. It hears nothing of a run
that the child had ended, when a crash of PostgreSQL undoes that end and the child is killed before it can assert it
again (`app.worker.unflushed`). So at each renewal of the lease this worker asks which runs it executes, and which
process started each: that is in the token of the start. A process that is not there executes nothing, whatever a
message, a broker or the pool's books may say; one whose number was given to another is taken for alive.

A run is lost when it is found so twice in succession, so that what the main process has to say of it comes first: a
limit that passed, a cancellation, how the child ended.
"""

import logging
import os
from functools import partial
from typing import Any
from uuid import UUID

from billiard.exceptions import WorkerLostError
from celery import signals

from app.scheduling.liveness import executed_by
from app.worker import bookkeeping, liveness, outcomes

logger = logging.getLogger(__name__)


class Orphans:
    """Looks for them, and gives them up."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._found: set[tuple[UUID, int]] = set()

    def look(self) -> None:
        """Give up those that were found before, and are still there; raises as the driver does."""
        executed = bookkeeping.transact(partial(executed_by, worker_id=liveness.worker_id()))
        before, self._found = self._found, {key for key, process in executed.items() if not _lives(process)}
        for run_id, attempt in before & self._found:
            lost = outcomes.outcome_of(WorkerLostError(f"Its process {executed[run_id, attempt]} is gone."))
            if outcomes.finish(self._app, run_id, attempt, lost) is not None:
                logger.warning(
                    "run %s is lost: its process is gone",
                    run_id,
                    extra={"action": "run_orphaned", "run_id": str(run_id)},
                )


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@signals.worker_ready.connect(weak=False)
def _begin(sender: Any, **_: Any) -> None:
    liveness.lease().when_renewed(Orphans(sender.app).look)

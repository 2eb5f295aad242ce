"""What a worker that leaves has to account for."""

from uuid import uuid4

from celery.worker import state

from app.worker.departure import held


class Taken:
    """As much of Celery's request as its books need."""

    def __init__(self, run: str) -> None:
        self.id, self.name = run, "calls.add"


def test_a_run_whose_second_message_has_ended_is_still_held() -> None:
    run = str(uuid4())
    first, second = Taken(run), Taken(run)
    for request in (first, second):
        state.task_reserved(request)
    state.task_accepted(first)
    state.task_ready(second)
    try:
        assert first in held()
        assert second not in held()
    finally:
        state.task_ready(first)
    assert first not in held()

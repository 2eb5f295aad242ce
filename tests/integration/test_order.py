"""The four queues in strict order: a worker takes from the first that has work."""

import random
from itertools import pairwise

from app.scheduling.messages import QUEUES
from app.settings import Settings
from support.calling import calling
from support.polling import eventually
from support.stack import Stack
from support.tasks import instant, nap

EACH = 40
SEED = 20_260_301


def test_a_saturated_worker_takes_the_first_queue_that_has_work(stack: Stack, settings: Settings) -> None:
    mixed = [queue for queue in QUEUES for _ in range(EACH)]
    random.Random(SEED).shuffle(mixed)
    with calling(settings):
        queue_of = {instant.apply_async((), queue=queue).id: queue for queue in mixed}
    stack.worker("-c", "1")
    starts = eventually(
        lambda: found if len(found := stack.ledger.starts()) == len(mixed) else [], 30, "all runs to start"
    )
    ranks = [QUEUES.index(queue_of[start.run]) for start in starts]
    assert [pair for pair in pairwise(ranks) if pair[0] > pair[1]] == []
    within = {queue: [start.run for start in starts if queue_of[start.run] == queue] for queue in QUEUES}
    sent = {queue: [run for run, its in queue_of.items() if its == queue] for queue in QUEUES}
    assert within == sent, "within a queue, the first that was sent is the first that runs"


def test_a_system_task_waits_for_the_running_task_alone(stack: Stack, settings: Settings) -> None:
    stack.worker("-c", "1")
    with calling(settings):
        running = nap.apply_async((1.0,), queue="priority_low")
        eventually(stack.ledger.starts, 20, "the first run to start")
        waiting = [nap.apply_async((0.01,), queue="priority_low").id for _ in range(3)]
        urgent = instant.apply_async((), queue="system")
        urgent.get(timeout=20)
        eventually(lambda: len(stack.ledger.starts()) == 5, 20, "all runs to start")
    assert [start.run for start in stack.ledger.starts()] == [running.id, urgent.id, *waiting]

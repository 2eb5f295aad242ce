"""Bare Celery: the application of a peer, and `stage`, which makes its messages wait.

`BENCH_BACKEND` is its result backend; empty for none. The options are those of our worker that bear on throughput:
early acknowledgement (Celery's default), nothing taken ahead, no events. With Celery's default of four messages a child
taken ahead it was measured 3 to 4 % faster, in turns, than with what it has here.
"""

import asyncio
import os

from celery import Celery

from bench.chores import places

app = Celery(
    "bench",
    broker=os.environ["BENCH_BROKER"],
    backend=os.environ["BENCH_BACKEND"] or None,
    set_as_current=True,
)
app.conf.update(
    task_ignore_result=not os.environ["BENCH_BACKEND"],
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    task_queues=None,
)


@app.task(name=places.NOOP)
def noop(n: int) -> int:
    """Give back the argument."""
    return n


@app.task(name=places.NAP)
def nap(n: int) -> int:
    """Await 100 ms in an event loop of its own."""

    async def body() -> int:
        await asyncio.sleep(places.NAP_SECONDS)
        return n

    return asyncio.run(body())


def stage(name: str, count: int) -> None:
    """Publish, as any program would, to a queue that no worker consumes."""
    with app.producer_pool.acquire(block=True) as producer:
        for n in range(count):
            app.tasks[name].apply_async((n,), queue=places.STAGED, producer=producer)

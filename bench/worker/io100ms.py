"""`io100ms`: runs that each await 100 ms, in the threads pool, beside `asyncio.run` in two prefork children."""

from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.chores import places
from bench.report import report
from bench.worker.crew import ours, stock
from support.servers import Servers

RUNS = 10_000
# Two children end 20 of them a second whatever else they do, so few of them tell the rate.
PEER_RUNS = 200
CONCURRENCY = "200"


def measure(servers: Servers, folder: Path, *, quick: bool) -> None:
    """In turns: one process of ours for all runs; of the peer, a part of them."""
    count, rounds = (2_000, 2) if quick else (RUNS, 3)
    few = PEER_RUNS // 4 if quick else PEER_RUNS
    rates: list[float] = []
    peers: list[float] = []
    with ExitStack() as stack:
        own = stack.enter_context(ours(servers, folder, "-P", "threads", "-c", CONCURRENCY))
        peer = stack.enter_context(stock("asyncio-run", servers, folder, "-c", "2"))
        own.rate(places.NAP, 200)
        peer.rate(places.NAP, 10)
        for _ in range(rounds):
            rates.append(own.rate(places.NAP, count))
            peers.append(peer.rate(places.NAP, few))
    report(
        "worker",
        "io100ms",
        count,
        median(rates),
        "runs/s",
        peer="asyncio-run",
        peer_value=median(peers),
        rounds={
            "upbeat": [round(rate) for rate in rates],
            "asyncio-run": [round(rate, 1) for rate in peers],
        },
        cpu=own.cpu,
        concurrency=int(CONCURRENCY),
        peer_runs=few,
    )

"""`io100ms`: runs that each await 100 ms, in the threads pool, beside `asyncio.run` in two prefork children."""

from pathlib import Path
from statistics import median

from bench.report import report
from bench.worker.crew import ours, stock
from bench.workers import places
from support.servers import Servers

RUNS = 10_000
# Two children end 20 of them a second whatever else they do, so few of them tell the rate.
PEER_RUNS = 200
CONCURRENCY = "200"


def measure(servers: Servers, folder: Path, *, quick: bool) -> None:
    """One process of ours for all runs; of the peer, a part of them."""
    count, rounds = (2_000, 1) if quick else (RUNS, 3)
    with ours(servers, folder, "-P", "threads", "-c", CONCURRENCY) as crew:
        crew.rate(places.NAP, 200)
        rates = [crew.rate(places.NAP, count) for _ in range(rounds)]
        cpu = crew.cpu
    with stock("asyncio-run", servers, folder, "-c", "2") as crew:
        crew.rate(places.NAP, 10)
        peer = crew.rate(places.NAP, PEER_RUNS // 4 if quick else PEER_RUNS)
    report(
        "worker",
        "io100ms",
        count,
        median(rates),
        "runs/s",
        peer="asyncio-run",
        peer_value=peer,
        rounds=[round(rate) for rate in rates],
        cpu=cpu,
        concurrency=int(CONCURRENCY),
        peer_runs=PEER_RUNS // 4 if quick else PEER_RUNS,
    )

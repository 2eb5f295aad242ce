"""The HTTP service under load: enqueueing beside FastAPI with Celery, and listing a long history."""

import os
import sys
from collections.abc import Sequence

from bench.api import enqueue, listing
from bench.api.load import NoWrk, require
from support.servers import running_servers

MEASURES = ("enqueue", "list-runs")
PEERS = tuple(enqueue.PEERS)


def run(
    *, quick: bool, peers: Sequence[str] | None = None, measures: Sequence[str] | None = None, **_: object
) -> None:
    """Measure what was chosen, by default everything."""
    chosen = [each for each in MEASURES if measures is None or each in measures]
    try:
        require()
    except NoWrk as missing:
        print(missing, file=sys.stderr)
        return
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (other work blurs what follows)",
        file=sys.stderr,
    )
    with running_servers(quick=False) as servers:
        if "enqueue" in chosen:
            rivals = [name for name in enqueue.PEERS if peers is None or name in peers]
            enqueue.measure(servers, quick=quick, peers=rivals)
        if "list-runs" in chosen:
            listing.measure(servers, quick=quick)

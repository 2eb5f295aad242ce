"""Workers beside bare Celery, on durable settings of a fresh PostgreSQL and a fresh Redis."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import peers as environment
from bench.worker import flat, guard, io100ms, noop, query
from support.servers import running_servers

MEASURES = {
    "noop": noop.measure,
    "guard": guard.measure,
    "query": query.measure,
    "io100ms": io100ms.measure,
    "flat": flat.measure,
}
# It takes many runs to see that something does not grow; a test looks at some.
NOT_QUICK = ("flat",)


def run(*, quick: bool, measures: Sequence[str] | None = None, **_: Any) -> None:
    """Measure what was chosen, by default everything."""
    environment.install()
    print(
        f"celery {environment.versions()['celery']}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        file=sys.stderr,
    )
    with running_servers(quick=False) as servers, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, measure in MEASURES.items():
            if name in measures if measures else not (quick and name in NOT_QUICK):
                print(name, file=sys.stderr)
                measure(servers, Path(folder), quick=quick)


__all__ = ["MEASURES", "run"]

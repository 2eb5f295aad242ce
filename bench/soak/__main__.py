"""`make soak MINUTES=30`: prints each injection and the verdict; leaves plots and figures in `build/soak/`.

Ends with status 1 if something was lost, doubled, stuck or changed. ``UPBEAT_TEST_SEED`` repeats a run.
"""

import argparse
import os
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from app.db import sync_engine, sync_sessions
from bench.soak.page import write
from support.ledger import Ledger
from support.processes import Processes
from support.servers import running_servers, settings_for
from support.soak import KINDS, Injection, Outcome, running_field, soak
from support.stack import Stack, stack_environment
from support.trial import Trial

FOLDER = ROOT / "build" / "soak"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds between two injections")
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second")
    parser.add_argument("--ticking", type=int, default=2, help="schedules of a tick a second")
    parser.add_argument("--small", action="store_true", help="five processes instead of nine")
    chosen = parser.parse_args()
    seed = int(os.environ.get("UPBEAT_TEST_SEED", random.randrange(2**32)))
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, {chosen.minutes:g} minutes", flush=True)
    outcome = _run(seed, chosen)
    told = "\n".join(outcome.lines())
    print(told)
    (FOLDER / "verdict.txt").write_text(told + "\n")
    print(f"plots: {write(FOLDER).relative_to(ROOT)}")
    return 1 if outcome.verdict.violations else 0


def _run(seed: int, chosen: argparse.Namespace) -> Outcome:
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="upbeat-soak-")))
        servers = ending.enter_context(running_servers())
        settings = settings_for(servers.postgres.url, servers.new_database(), servers.new_redis_url())
        processes, ledger = Processes(folder), Ledger(folder / "ledger.jsonl")
        ending.callback(processes.end)
        name, redis_url = settings.database.name, settings.broker.url()
        environment = stack_environment(servers.postgres.url, name, redis_url, ledger.path)
        engine = sync_engine(settings.database, name="soak")
        ending.callback(engine.dispose)
        trial = Trial(sync_sessions(engine), servers.database_url(name), redis_url, ledger)
        field = ending.enter_context(
            running_field(
                Stack(processes, environment, ledger), servers, trial, seed, folder, small=chosen.small
            )
        )
        return soak(
            field,
            settings,
            KINDS,
            seed,
            FOLDER,
            seconds=60 * chosen.minutes,
            pause=chosen.pause,
            rate=chosen.rate,
            ticking=chosen.ticking,
            told=_tell,
        )


def _tell(injection: Injection) -> None:
    print(f"{injection.at:8.1f} s  {injection.number:5}  {injection.kind}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

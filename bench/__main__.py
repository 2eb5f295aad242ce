"""`make bench`: every measurement, or a part of it (`make bench ONLY=engine`).

Each measure prints one JSON object and appends it to `build/bench.jsonl`, of a quick run to `build/bench-quick.jsonl`;
what happens meanwhile is told on stderr. `make bench ONLY=engine ARGS="--quick --sizes 10000 --peers redbeat --measures burst"`
chooses.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sdk" / "src"))

from bench import api, engine, report, run_logs, sdk, worker

PARTS = {"api": api, "engine": engine, "run_logs": run_logs, "sdk": sdk, "worker": worker}
MEASURES = [*engine.MEASURES, *engine.WITH_IDLE, *sdk.MEASURES, *worker.MEASURES, *api.MEASURES]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(PARTS), action="append", help="run this part")
    parser.add_argument("--quick", action="store_true", help="small sizes, short runs: about four minutes")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of schedules")
    parser.add_argument("--peers", nargs="*", choices=[*engine.PEERS, *api.PEERS], help="none for ours alone")
    parser.add_argument("--measures", nargs="+", choices=MEASURES)
    chosen = parser.parse_args()
    if chosen.quick:
        report.RESULTS = report.QUICK_RESULTS
    for name in chosen.only or sorted(PARTS):
        PARTS[name].run(quick=chosen.quick, sizes=chosen.sizes, peers=chosen.peers, measures=chosen.measures)


main()

"""`make model`: measures the costs (about two minutes) and writes `docs/model.md`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench.model.costs import Costs, Point
from bench.model.measure import measured
from bench.model.page import write

FILE = ROOT / "build" / "model.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=__doc__)
    parser.add_argument("--again", action="store_true", help="write the page from the costs of the last time")
    parser.add_argument("--rounds", type=int, default=4)
    chosen = parser.parse_args()
    if chosen.again:
        kept = json.loads(FILE.read_text())
        costs = Costs(**kept["costs"])
        points = [Point(**{**point, "rounds": tuple(point["rounds"])}) for point in kept["points"]]
    else:
        costs, points = measured(chosen.rounds)
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(
            json.dumps({"costs": asdict(costs), "points": [asdict(point) for point in points]}, indent=1)
        )
    print(write(costs, points).relative_to(ROOT))


if __name__ == "__main__":
    main()

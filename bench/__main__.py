"""`make bench`: every measurement, or a part of it (`make bench ONLY=engine`).

Each measure prints one JSON object and appends it to `build/bench.jsonl`.
"""

import argparse

from bench import engine

PARTS = {"engine": engine.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(PARTS), action="append", help="run this part")
    parser.add_argument("--quick", action="store_true", help="small sizes, fewer repetitions")
    chosen = parser.parse_args()
    for name in chosen.only or sorted(PARTS):
        PARTS[name](quick=chosen.quick)


main()

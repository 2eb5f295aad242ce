"""`claims`: claim, insert and advance, without publishing, by one beat and by two at once."""

from statistics import median

from bench.engine.field import BENCH, Field
from bench.engine.race import race
from bench.report import report

DUE = 20_000


def measure(field: Field) -> None:
    """One and two in turns."""
    due = min(DUE, field.size)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2 if field.quick else 3 if field.size > 100_000 else 5):
        for beats, found in rates.items():
            found.append(race(field, beats, due).rate)
    one, two = median(rates[1]), median(rates[2])
    rounds = {str(beats): [round(rate) for rate in found] for beats, found in rates.items()}
    report(
        BENCH,
        "claims",
        field.size,
        two,
        "claims/s of two beats",
        peer="one beat of ours",
        peer_value=one,
        rounds=rounds,
    )

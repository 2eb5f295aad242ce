"""What a terminal shows, beside what was recorded of it."""

from collections.abc import Sequence


def all_match(recorded: Sequence[str], lines: Sequence[str]) -> bool:
    """Line by line; a recorded "..." alone is any number of lines, up to the first that matches what follows."""
    skipping, number = False, 0
    for each in recorded:
        if each == "...":
            skipping = True
            continue
        while skipping and number < len(lines) and not matches(each, lines[number]):
            number += 1
        if number == len(lines) or not matches(each, lines[number]):
            return False
        skipping, number = False, number + 1
    return skipping or number == len(lines)


def matches(recorded: str, line: str) -> bool:
    """Columns may be as wide as they like, and "..." is anything."""
    parts = [" ".join(part.split()) for part in recorded.split("...")]
    rest = " ".join(line.split())
    if not rest.startswith(parts[0]) or not rest.endswith(parts[-1]):
        return False
    rest = rest[len(parts[0]) :]
    for part in parts[1:]:
        found = rest.find(part)
        if found < 0:
            return False
        rest = rest[found + len(part) :]
    return len(parts) > 1 or not rest

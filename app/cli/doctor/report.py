"""How findings are shown: one after the other as they are made, or all as JSON."""

import logging
from collections.abc import Iterable
from dataclasses import asdict
from typing import TextIO

from rich.text import Text

from app.cli.doctor.findings import Finding, Verdict
from app.cli.tables import console, print_json

WIDTH = 24
_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.SKIPPED: "dim"}


def report(findings: Iterable[Finding], *, as_json: bool, file: TextIO | None = None) -> list[Finding]:
    """Print them, and answer them all."""
    # What goes wrong on the way is said by the findings.
    logging.getLogger("app").addHandler(logging.NullHandler())
    if as_json:
        found = list(findings)
        print_json([asdict(each) for each in found], file)
        return found
    out, found = console(file), []
    for each in findings:
        found.append(each)
        out.print(line(each))
    counts = {verdict: sum(1 for each in found if each.verdict is verdict) for verdict in Verdict}
    out.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    return found


def line(finding: Finding) -> Text:
    """Verdict, check and what was found; the remedy below it."""
    text = Text(f"{finding.verdict:<8}", style=_STYLES[finding.verdict])
    text.append(f"{finding.check:<{WIDTH}}{finding.found}", style="default")
    if finding.remedy:
        text.append(f"\n{'':8}{'':{WIDTH}}-> {finding.remedy}", style="default")
    return text

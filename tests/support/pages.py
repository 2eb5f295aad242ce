"""The blocks of the documentation's pages, and how each is run.

    ```sh                    typed into the page's session, in order; it must end well
    ```python                run as a program, likewise
    ```{.python file="x.py"} put into the session's folder, for commands that follow
    ```text                  what the block before it shows: "..." is anything, a line of its own any lines
    ```{.sh .host}           needs an engine or an init system: each command is looked up, not run
    ```{.text .picture}      a drawing

Any other block is a mistake.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\{[^}\n]*\}|[^\n`]*)\n(.*?)^```[ ]*$", re.DOTALL | re.MULTILINE)
MARK = "@@@ block"
RUN = {"sh", "python"}
KNOWN = RUN | {"text", "{.sh .host}", "{.text .picture}"}
FILE = re.compile(r'\{\.python file="([\w.]+)"\}')


@dataclass(frozen=True, slots=True)
class Block:
    """``kind`` is what stands after the fence."""

    kind: str
    text: str


class Unmarked(Exception):
    """A block says by nothing how it is run."""


def blocks(page: str) -> list[Block]:
    """Those of a page.

    Raises:
        Unmarked: one is of no known kind.
    """
    found = [Block(kind.strip(), text) for kind, text in FENCE.findall(page)]
    for each in found:
        if each.kind not in KNOWN and not FILE.fullmatch(each.kind):
            raise Unmarked(f"```{each.kind}\n{each.text[:200]}")
    return found


def script(found: list[Block]) -> str:
    """One session of bash that runs them, and shows where each begins."""
    parts = ["set -euo pipefail"]
    for number, each in enumerate(found):
        file = FILE.fullmatch(each.kind)
        if each.kind in RUN or file:
            parts.append(f"echo '{MARK} {number}'")
        if each.kind == "sh":
            parts.append(each.text)
        elif each.kind == "python" or file:
            command = f"cat > {file[1]}" if file else "python -W error -"
            parts.append(f"{command} <<'END OF PROGRAM'\n{each.text}END OF PROGRAM")
    return "\n".join(parts) + "\n"


def outputs(shown: str) -> dict[int, str]:
    """What each block showed, by its number."""
    _, *parts = re.split(rf"^{MARK} (\d+)\n", shown, flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[::2], parts[1::2], strict=True)}


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each line of a block of shell."""
    for line in block.text.splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def written(folder: Path) -> dict[str, str]:
    """The pages of `docs/` by their path."""
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*.md"))}

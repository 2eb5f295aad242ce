"""How far long work is: one line below what a terminal shows, which goes when the work is done; nothing anywhere else."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

AFTER = 0.4  # seconds that work goes on before anything is drawn
T = TypeVar("T")
# Called with what is done, of how much (None: nobody knows), and what is said of it.
Tell = Callable[[float, float | None, str], None]


@contextmanager
def working(what: str, *, quiet: bool = False) -> Iterator[Tell]:
    """Shows that ``what`` goes on, and how far it is, once it takes a while; not when ``quiet``, nor when the output is not read on a terminal."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        _Count(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=quiet or not (sys.stdout.isatty() and sys.stderr.isatty()),
    )
    task = bar.add_task(what, total=None)

    def tell(done: float, total: float | None = None, said: str = "") -> None:
        bar.update(task, completed=done, total=total, description=f"{what} {said}".rstrip())

    with _drawn_after(AFTER, bar):
        yield tell


def counted(items: Iterable[T], what: str, *, quiet: bool = False) -> Iterator[T]:
    """The same items, counted as they come."""
    with working(what, quiet=quiet) as tell:
        for number, item in enumerate(items, 1):
            yield item
            tell(number, None, "")


@contextmanager
def _drawn_after(seconds: float, bar: Progress) -> Iterator[None]:
    """What is done sooner does not flicker."""
    lock, over = threading.Lock(), False

    def draw() -> None:
        with lock:
            if not over:
                bar.start()

    timer = threading.Timer(seconds, draw)
    timer.daemon = True
    if not bar.disable:
        timer.start() if seconds else draw()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over = True
            if bar.live.is_started:
                bar.stop()


class _Count(ProgressColumn):
    """3/10, or 3 when nobody knows of how many; nothing before the first."""

    def render(self, task: Task) -> Text:
        if not task.completed and not task.total:
            return Text("")
        total = "" if task.total is None else f"/{_number(task.total)}"
        return Text(f"{_number(task.completed)}{total}", style="progress.download")


def _number(value: Any) -> str:
    return f"{value:g}" if value < 1e6 else f"{value:.0f}"

"""What a terminal shows of long work, and that nothing else ever sees it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from app.cli.progress import counted, working

SHOWN = "\x1b[?25h"  # the cursor is back
ERASED = "\x1b[2K"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("app.cli.progress.AFTER", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


@contextmanager
def terminal(stdout: io.StringIO | None = None) -> Iterator[Screen]:
    """Standard error as a terminal, and standard output, unless it is given."""
    with redirect_stdout(stdout or Screen()), redirect_stderr(screen := Screen()):
        yield screen


def test_a_terminal_shows_how_far_it_is_and_keeps_nothing_of_it() -> None:
    with terminal() as screen, working("Purging") as tell:
        tell(3, 10, "[pages]")
    shown = screen.getvalue()
    assert "Purging [pages]" in shown
    assert "3/10" in shown
    assert shown.endswith(ERASED)
    assert SHOWN in shown


def test_the_line_is_clean_after_ctrl_c() -> None:
    with terminal() as screen, pytest.raises(KeyboardInterrupt), working("Waiting"):
        raise KeyboardInterrupt
    assert screen.getvalue().endswith(ERASED)
    assert SHOWN in screen.getvalue()


def test_a_list_is_counted_as_it_comes() -> None:
    with terminal() as screen:
        assert list(counted(range(3), "Reading")) == [0, 1, 2]
    assert "Reading" in screen.getvalue()


@pytest.mark.parametrize(("quiet", "stdout"), [(True, Screen()), (False, io.StringIO())])
def test_nothing_of_it_with_json_or_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, stdout: io.StringIO, *, quiet: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with terminal(stdout) as screen, working("Waiting", quiet=quiet) as tell:
        tell(1, 2, "")
    assert screen.getvalue() == ""


def test_what_is_done_at_once_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.progress.AFTER", 60.0)
    with terminal() as screen, working("Waiting"):
        pass
    assert screen.getvalue() == ""

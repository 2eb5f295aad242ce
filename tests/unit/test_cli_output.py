"""Tables, JSON, and the reading of logs."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from app.cli import main
from app.cli.logfiles import follow, last_lines, log_of
from app.cli.startup import LONGEST, keep_startup, newest_start
from app.cli.tables import cell, print_json, show, show_fields, span
from app.errors import NotFound


@dataclass
class Row:
    id: UUID
    at: datetime
    kwargs: dict[str, object]
    number: int


ROW = Row(UUID(int=1), datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC), {"a": "[bold]ö"}, 7)


def shown(*, as_json: bool, rows: list[Row]) -> str:
    out = io.StringIO()
    show(rows, {"id": "run", "kwargs": "kwargs", "number": "n"}, as_json=as_json, empty="Nothing.", file=out)
    return out.getvalue()


def test_a_table_has_headings_and_the_data_as_it_is() -> None:
    heading, row = shown(as_json=False, rows=[ROW]).splitlines()
    assert heading.split() == ["run", "kwargs", "n"]
    assert row.split() == [str(ROW.id), '{"a":', '"[bold]ö"}', "7"]


def test_json_has_all_fields_and_an_empty_list_is_one() -> None:
    (item,) = json.loads(shown(as_json=True, rows=[ROW]))
    assert item == {"id": str(ROW.id), "at": "2027-01-02T03:04:05+00:00", "kwargs": ROW.kwargs, "number": 7}
    assert json.loads(shown(as_json=True, rows=[])) == []
    assert shown(as_json=False, rows=[]) == "Nothing.\n"


def test_one_object_is_shown_whole() -> None:
    out = io.StringIO()
    trace = "Traceback:\n  line 1\nValueError: [no]"
    show_fields(
        {
            "id": ROW.id,
            "reason": None,
            "note": "n" * 100,
            "args": [1, "a"],
            "kwargs": {"text": "x" * 100},
            "error": {"type": "ValueError", "traceback": trace},
        },
        file=out,
    )
    assert out.getvalue().splitlines() == [
        f"id               {ROW.id}",
        "reason           -",
        f"note             {'n' * 100}",
        'args             [1, "a"]',
        "kwargs",
        "  {",
        f'    "text": "{"x" * 100}"',
        "  }",
        "error.type       ValueError",
        "error.traceback",
        "  Traceback:",
        "    line 1",
        "  ValueError: [no]",
    ]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (100, 2),
        (60, 3),  # a cell is folded
        (40, 4),  # a field in each line, and an empty one
    ],
)
def test_an_id_stays_whole_however_narrow_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, lines: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out = Screen()
    row = Row(ROW.id, ROW.at, {"a": "ö" * 12}, 7)
    show([row], {"id": "run", "kwargs": "kwargs", "number": "n"}, as_json=False, empty="", file=out)
    assert str(ROW.id) in out.getvalue()
    assert len(out.getvalue().splitlines()) == lines, out.getvalue()


def test_a_pipe_gets_no_spaces_at_the_end_of_lines() -> None:
    assert not any(line.endswith(" ") for line in shown(as_json=False, rows=[ROW, ROW]).splitlines())


def test_what_another_encoding_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding="ascii")
    print_json({"a": "你好😀"}, file=out)
    out.flush()
    assert json.loads(written.getvalue()) == {"a": "你好😀"}
    monkeypatch.setattr("sys.argv", ["upbeat", "status", "--help"])
    with redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    out.write("“…”")
    out.flush()
    assert rb"\u201c\u2026\u201d" in written.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), ("", "-"), ([], "-"), ({}, "-"), (0, "0"), (False, "no"), (1.25, "1.2"),
        (["a", 1], '["a", 1]'), ("two\nlines", "two lines"), ("x" * 100, "x" * 59 + "…"),
    ],
)  # fmt: skip
def test_a_cell_is_one_short_line(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (4, "4 s"), (59.6, "1 min"), (7500, "2 h 5 min"), (3 * 86400 + 4 * 3600, "3 d 4 h")],
)
def test_a_span_of_time(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "logs" / "celery" / "worker.log"
    file.parent.mkdir(parents=True)
    return file


def test_the_last_lines_are_read_from_the_end(log: Path) -> None:
    lines = [f"line {number} {'x' * 200}" for number in range(2000)]
    log.write_text("\n".join(lines) + "\n")
    for number in (0, 1, 10, 1999, 5000):
        assert last_lines(log, number) == lines[len(lines) - min(number, len(lines)) :]
    log.write_text("")
    assert last_lines(log, 5) == []


def test_following_survives_a_rotation_and_waits_for_whole_lines(log: Path) -> None:
    log.write_text("old\n")

    def rotate() -> None:
        log.rename(log.with_name("worker.log.1"))
        log.write_text("new\n")

    def append(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    steps: list[Callable[[], None]] = [
        lambda: append("half"),
        lambda: append(" and whole\n"),
        rotate,
        lambda: append("newer\n"),
    ]

    def next_step() -> bool:
        """Called once a round."""
        if steps:
            steps.pop(0)()
        return len(log.read_text().splitlines()) == 2 and not steps and next(rounds)

    rounds = iter([False, False, False, False, True])
    assert list(follow(log, until=next_step)) == ["half and whole", "new", "newer"]


def test_a_log_that_was_never_written_says_how_to_start(log: Path) -> None:
    with pytest.raises(NotFound, match="`upbeat start worker`"):
        log_of("worker")


def test_the_newest_start_alone_is_kept(log: Path) -> None:
    log.write_text("0 worker starts: pid 1\nold\n0 worker starts: pid 2\nready\n")
    keep_startup()
    kept = log.with_name("worker_startup.log")
    assert kept.read_text() == "0 worker starts: pid 2\nready\n"
    log.write_text("0 worker starts: pid 3\n" + "x" * 2 * LONGEST)
    keep_startup()
    assert len(kept.read_text()) == LONGEST
    assert newest_start("no start in it") == ""

"""`upbeat schedules export|import|act`: many schedules at once, over the SDK."""

import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from app.cli.arguments import given
from app.cli.client import connected
from app.cli.completion import complete_queues
from app.cli.progress import working
from app.cli.runs import TaskOption
from app.cli.schedule_verbs import DryRun, schedules
from app.cli.schedules import Json
from app.cli.tables import print_json, show
from app.errors import FieldError, InvalidInput
from app.scheduling.states import BulkAction, ScheduleState

__all__ = ["schedules"]

BATCH = 500
CHANGES = 2

Search = Annotated[str | None, typer.Option(help="Part of a name or a task.")]
State = Annotated[ScheduleState | None, typer.Option(help="Those in this state.")]
Queue = Annotated[
    str | None, typer.Option(help="The queue that they name themselves.", autocompletion=complete_queues)
]


@schedules.command("export")
def export_schedules(
    file: Annotated[Path | None, typer.Argument(help="Where to; standard output without.")] = None,
    *,
    search: Search = None,
    state: State = None,
    task: TaskOption = None,
    queue: Queue = None,
    as_json: Json = False,
) -> None:
    """Write people's schedules as YAML, as `import` and UPBEAT_SCHEDULES_FILE take them."""
    which: dict[str, Any] = given(search=search, state=state, task=task, queue=queue)
    entries: dict[str, Any] = {}
    with connected() as client, working("Reading", quiet=as_json) as tell:
        page = client.schedules.export(**which)
        entries |= page.schedules
        while page.next_cursor is not None:
            tell(len(entries), None, "")
            page = client.schedules.export(cursor=page.next_cursor, **which)
            entries |= page.schedules
    if file is None:
        _write(entries, sys.stdout, as_json=as_json)
        return
    try:
        with file.open("w", encoding="utf-8") as out:
            _write(entries, out, as_json=as_json)
    except OSError as error:
        raise InvalidInput(FieldError(str(file), f"cannot be written: {error.strerror}")) from None
    print(f"{len(entries)} schedules are in {file}.")


@schedules.command("import")
def import_schedules(
    file: Annotated[Path, typer.Argument(help="YAML or JSON, as `export` writes it; - is standard input.")],
    *,
    dry_run: DryRun = False,
    skip_conflicts: Annotated[
        bool, typer.Option("--skip-conflicts", help="Import the others; else nothing is imported.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why, kept with each version.")] = None,
    as_json: Json = False,
) -> None:
    """Create and update schedules by name; what is not in the file stays.

    Up to 500 at a time are imported all or none. Exit status 2 of --dry-run: something would change.
    """
    entries = _entries(file)
    steps: list[dict[str, Any]] = []
    with connected() as client, working("Importing", quiet=as_json) as tell:
        for start in range(0, len(entries), BATCH):
            tell(start, len(entries), "")
            body: dict[str, Any] = given(reason=reason) | {
                "schedules": dict(entries[start : start + BATCH]),
                "dry_run": dry_run,
                "skip_conflicts": skip_conflicts,
            }
            try:
                done = client.schedules.import_(**body)
            except Exception:
                if start and not dry_run:
                    print(f"The first {start} of {len(entries)} are imported.", file=sys.stderr)
                raise
            steps += [each.model_dump(by_alias=True) for each in done.items]
    rows = [step | {"fields": ", ".join(each["field"] for each in step["changes"])} for step in steps]
    columns = {"action": "action", "key": "schedule", "fields": "changes", "problem": "problem"}
    if as_json:
        print_json(steps)
    else:
        show(rows, columns, as_json=False, empty="The file has no schedules.")
    if dry_run and any(step["action"] in ("create", "update") for step in steps):
        raise typer.Exit(CHANGES)


@schedules.command("act")
def act_on_schedules(
    action: Annotated[BulkAction, typer.Argument(help="What is done to each.")],
    *,
    search: Search = None,
    state: State = None,
    task: TaskOption = None,
    queue: Queue = None,
    note: Annotated[str | None, typer.Option(help="Why they are paused.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, kept with each version.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Do something to all schedules that the options find; at least one of them is needed.

    Exit status 1: some were refused, and left alone.
    """
    if not any((search, state, task, queue)):
        raise typer.BadParameter("say which schedules", param_hint="--search, --state, --task or --queue")
    if action is BulkAction.PAUSE and not note:
        raise typer.BadParameter("say why they are paused", param_hint="--note")
    body: dict[str, Any] = given(note=note, reason=reason) | {
        "action": action,
        "filter": given(search=search, state=state, task=task, queue=queue),
        "dry_run": dry_run,
    }
    parts = []
    with connected() as client, working(action, quiet=as_json) as tell:
        done = client.schedules.act_on_many(**body)
        parts.append(done)
        while done.next_cursor is not None:
            tell(sum(part.changed + part.unchanged + part.refused for part in parts), None, "")
            done = client.schedules.act_on_many(**body, cursor=done.next_cursor)
            parts.append(done)
    changed, unchanged, refused = (
        sum(getattr(part, name) for part in parts) for name in ("changed", "unchanged", "refused")
    )
    if as_json:
        print_json([part.model_dump(by_alias=True) for part in parts])
    else:
        would = "would be " if dry_run else ""
        print(f"{changed} {would}changed, {unchanged} as they were to be, {refused} refused.")
        refusals = [each.model_dump(by_alias=True) for part in parts for each in part.refusals]
        if refusals:
            show(refusals, {"id": "id", "why": "why"}, as_json=False, empty="")
    if refused and not dry_run:
        raise typer.Exit(1)


def _write(entries: dict[str, Any], out: TextIO, *, as_json: bool) -> None:
    from app.scheduling.transfer import dumped

    if as_json:
        print_json({"schedules": entries}, out)
    else:
        out.write(dumped(entries))


def _entries(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Key and fields of each entry, in the order of the file.

    Raises:
        InvalidInput: it cannot be read.
    """
    from app.scheduling import schedule_file

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(FieldError(str(file), f"cannot be read: {why}")) from None
    # JSON is YAML.
    document = schedule_file.load(text, str(file))
    return [(key, fields) for key, fields, _ in schedule_file.entries(document, str(file))]

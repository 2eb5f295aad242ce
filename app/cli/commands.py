"""The verbs of the `upbeat` command."""

import inspect
import sys
from typing import Annotated

import typer

from app.cli.asking import ask
from app.cli.bulk import runs
from app.cli.choices import Level
from app.cli.daemons import daemons
from app.cli.progress import working
from app.cli.queues import queues
from app.cli.runs import tasks
from app.cli.transfer import schedules
from app.cli.workers import workers
from app.errors import UpbeatError
from app.modules.auth.roles import Role
from app.settings import get_settings

app = typer.Typer(
    name="upbeat",
    help="The schedule-and-run service for Celery.",
    epilog="Exit status: 0 done; 1 not done, and a line says why; 2 wrong usage, and of `schedules plan`, `import --dry-run` and `check`:"
    " something would change, or does not fit; 3 of `status`: a service does not run, of `doctor`: a check failed;"
    " 4 of `--wait`: the run did not succeed;"
    " 130 stopped by Ctrl-C. `--install-completion` completes verbs in your shell.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
users = typer.Typer(help="People who may log in.", no_args_is_help=True)
app.add_typer(daemons)
app.add_typer(users, name="users")
api_keys = typer.Typer(help="Credentials for programs.", no_args_is_help=True)
app.add_typer(api_keys, name="api-keys")
app.add_typer(schedules, name="schedules")
app.add_typer(tasks, name="tasks")
app.add_typer(runs, name="runs")
app.add_typer(workers, name="workers")
app.add_typer(queues, name="queues")


def run() -> int:
    """The exit status: 1 for a problem that was told on stderr; typer exits by itself otherwise."""
    try:
        app(prog_name="upbeat")
    except Exception as error:
        told = explanation(error)
        if told is None:
            raise
        print(f"upbeat: {told}", file=sys.stderr)
        return 1
    return 0


def explanation(error: Exception) -> str | None:
    """What a user can do about it; None for a fault of the program, which deserves its trace."""
    from sqlalchemy.exc import DBAPIError, ProgrammingError

    from app.cli.client import sdk_problem
    from app.scheduling.messages import BrokerUnavailable

    if isinstance(error, UpbeatError):
        return error.detail
    if (problem := sdk_problem(error)) is not None:
        return problem
    told = None
    if isinstance(error, BrokerUnavailable):
        told = f"Redis cannot be used: {error}."
    elif isinstance(error, ProgrammingError) and "does not exist" in str(error.orig):
        return "The database is not migrated. Run `upbeat migrate`."
    elif isinstance(error, DBAPIError):
        reason = str(error.orig).strip().splitlines()[0].rstrip(".")
        told = f"The database cannot be used: {reason}."
    elif isinstance(error, ConnectionError):
        told = f"A server does not answer: {error}."
    return told and f"{told} `upbeat doctor` looks for the cause."


@app.command()
def up(
    *,
    attached: Annotated[
        bool, typer.Option("--attached", hidden=True, help="Also stop when the starting process ends.")
    ] = False,
) -> None:
    """Start everything in the foreground: servers, API, worker and beat. Ctrl-C stops it."""
    from app.cli.up import up as run_stack

    run_stack(attached=attached)


@app.command(hidden=True)
def keep(names: list[str]) -> None:
    """Run services in the background; `upbeat start` calls this."""
    from app.cli.keeper import keep as keep_running

    keep_running(names)


@users.command("create")
def create_user(
    username: str,
    role: Annotated[Role, typer.Option(help="Each may do what the former may.")] = Role.VIEWER,
    *,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Add a person. The password is asked for twice, unless it comes on standard input."""
    from app.cli.people import add_person

    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = ask("Password", instead="--password-stdin", secret=True)
    add_person(get_settings(), username, password, role)
    print(f"{username} may log in as {role}.")


@api_keys.command("create")
def create_api_key(
    username: Annotated[str, typer.Argument(help="For whom the key acts.")],
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    scope: Annotated[Level, typer.Option(help="How much it may do; never more than its user.")] = Level.READ,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; never without.")] = None,
) -> None:
    """Make an API key, and print it: the only time that it is shown."""
    from app.cli.keys import make_key

    made = make_key(get_settings(), username, name, [scope], days)
    print(made.secret)


@app.command()
def migrate(
    *,
    schema_only: Annotated[
        bool, typer.Option("--schema-only", help="Leave schedules alone: neither apply nor check them.")
    ] = False,
) -> None:
    """Bring the database to the newest revision (created when missing), then deploy the schedules.

    That is: apply what is declared in code and in UPBEAT_SCHEDULES_FILE, and check that all schedules fit their tasks.
    """
    from app.db.migrate import Standing, upgrade

    settings = get_settings()
    with working("Migrating"):
        before = upgrade(settings)
    if before is Standing.AHEAD:
        print(f"A later release has migrated the database {settings.database.name}; it is left as it is.")
    else:
        print(f"The database {settings.database.name} is up to date.")
    if not schema_only:
        from app.cli.deployment import deploy, summary

        for line in summary(deploy(settings)):
            print(line)


@app.command()
def grant(
    *,
    embedded_beat: Annotated[
        bool,
        typer.Option("--embedded-beat", help="The API runs a beat inside, and needs its privileges too."),
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the SQL, and do nothing.")] = False,
) -> None:
    """Give the database roles of API, workers and beats what each needs. Repeat it after each migration."""
    from app.cli.roles import grant_roles

    for statement in grant_roles(get_settings(), embedded_beat=embedded_beat, show=show):
        print(f"{statement};")
    if not show:
        print("Granted. Set a password for each role that has none: ALTER ROLE upbeat_api PASSWORD '…'.")


def _filled(group: typer.Typer) -> None:
    """Let terminals break the lines of help, not the docstrings that they come from."""
    for command in group.registered_commands:
        parts = inspect.cleandoc(getattr(command.callback, "__doc__", None) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(part.split()) for part in parts)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _filled(inner.typer_instance)


_filled(app)

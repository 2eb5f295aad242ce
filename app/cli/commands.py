"""The verbs of the `upbeat` command."""

import sys
from typing import Annotated

import typer

from app.cli.schedules import schedules
from app.errors import UpbeatError
from app.settings import get_settings

app = typer.Typer(
    name="upbeat",
    help="The schedule-and-run service for Celery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
users = typer.Typer(help="People who may log in.", no_args_is_help=True)
app.add_typer(users, name="users")
app.add_typer(schedules, name="schedules")


def run() -> int:
    """The exit status: 1 for a problem that was told on stderr; typer exits by itself otherwise."""
    try:
        app()
    except UpbeatError as error:
        print(f"upbeat: {error.detail}", file=sys.stderr)
        return 1
    return 0


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


@users.command("create")
def create_user(
    username: str,
    role: Annotated[
        str, typer.Option(help="viewer, operator or admin; each may do what the former may.")
    ] = "viewer",
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
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    add_person(get_settings(), username, password, role)
    print(f"{username} may log in as {role}.")


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
    from app.db.migrate import upgrade

    settings = get_settings()
    upgrade(settings)
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

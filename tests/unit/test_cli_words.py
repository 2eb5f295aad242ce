"""What the command understands, and what it answers to a user's mistakes."""

import subprocess
import sys
from collections.abc import Iterable

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError
from typer.testing import CliRunner

from app.cli.choices import DEFAULT, Level, Service
from app.cli.commands import app, explanation
from app.cli.schedules import How
from app.cli.services import chosen
from app.errors import NotFound
from app.modules.auth.roles import LEVELS
from app.scheduling.declared import Prune
from app.scheduling.messages import BrokerUnavailable

VERBS = ("up", "migrate", "start", "stop", "restart", "status", "logs", "purge", "inspect", "doctor")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((), ("worker", "beat")),
        ((Service.API,), ("api",)),
        ((Service.BEAT, Service.WORKER), ("worker", "beat")),
        ((Service.ALL,), ("worker", "beat", "api")),
    ],
)
def test_which_services_are_meant(given: tuple[Service, ...], names: tuple[str, ...]) -> None:
    assert chosen(given, DEFAULT) == names


@pytest.mark.parametrize(
    ("written", "meant"),
    [(How, Prune), (Level, LEVELS)],
    ids=["prune", "scope"],
)
def test_words_that_are_written_twice_are_the_same(written: Iterable[str], meant: Iterable[str]) -> None:
    assert [str(each) for each in written] == [str(each) for each in meant]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str) -> None:
    answer = CliRunner().invoke(app, [verb, "--help"])
    assert answer.exit_code == 0
    assert "Usage" in answer.output


def test_the_help_tells_the_exit_statuses_and_of_completion() -> None:
    answer = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert "3 of `status`" in answer
    assert "--install-completion" in answer


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", "celery"],
        ["logs"],
        ["logs", "all"],
        ["logs", "worker", "-5"],
        ["inspect", "moon"],
        ["purge", "moon"],
    ],
)
def test_wrong_usage_has_its_own_status_and_no_trace(arguments: list[str]) -> None:
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotFound("There is none. Make one."), "There is none. Make one."),
        (BrokerUnavailable("Timeout"), "Redis cannot be used: Timeout."),
        (
            OperationalError("", {}, Exception("connection refused\nmore")),
            "cannot be used: connection refused.",
        ),
        (ProgrammingError("", {}, Exception('relation "x" does not exist')), "Run `upbeat migrate`."),
        (ConnectionRefusedError(111, "refused"), "`upbeat doctor`"),
    ],
)
def test_a_problem_is_one_line_that_says_what_to_do(error: Exception, told: str) -> None:
    said = explanation(error)
    assert said is not None
    assert told in said
    assert "\n" not in said


def test_what_is_typed_is_answered_without_loading_the_domain() -> None:
    """Completion and `--help` wait for whatever the verbs import."""
    program = "import sys, app.cli.commands; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"app.cli.schedule_verbs", "app.scheduling.policies"} <= loaded
    heavy = {"app.db", "app.worker", "app.scheduling.models", "sqlalchemy", "celery", "httpx", "limits"}
    assert loaded & heavy == set()


def test_a_fault_of_the_program_keeps_its_trace() -> None:
    assert explanation(KeyError("x")) is None

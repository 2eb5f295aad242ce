"""What a shell is told when it asks the command to complete what is typed."""

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from app.settings import get_settings


def completed(typed: str, shell: str = "bash") -> list[str]:
    """The answer to the shell's own question, by the variables in which it comes; the last word is incomplete."""
    asked = {
        "_UPBEAT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return CliRunner().invoke(app, [], prog_name="upbeat", env=asked).output.split("\n")


@pytest.fixture(autouse=True)
def _nobody_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPBEAT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("UPBEAT_TOKEN", "x")
    get_settings.cache_clear()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("upbeat s", {"start", "stop", "status", "schedules"}),
        ("upbeat schedules pr", {"preview", "prune"}),
        ("upbeat schedules backfill --re", {"--reprocess"}),
        ("upbeat schedules backfill --reprocess ", {"none", "failed", "completed"}),
        ("upbeat schedules act p", {"pause"}),
        ("upbeat runs list --state s", {"succeeded", "skipped"}),
        ("upbeat tasks run --queue pri", {"priority_high", "priority_low"}),
        ("upbeat queues pause sys", {"system"}),
        ("upbeat start w", {"worker"}),
        ("upbeat inspect re", {"reserved", "registered", "revoked"}),
        ("upbeat users create --role ", {"viewer", "operator", "admin"}),
        ("upbeat tasks run ", {""}),  # the service is away
    ],
)
def test_verbs_options_and_their_words(typed: str, words: set[str]) -> None:
    assert set(completed(typed)) - {""} == words - {""}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_what_each_is_for(shell: str) -> None:
    told = " ".join(completed("upbeat doc", shell))
    assert "doctor" in told
    assert "Find out what is wrong" in told

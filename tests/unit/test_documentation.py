"""The site: it can be made, all its links lead somewhere, it needs no internet, and each block says how it is run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app.cli.commands import app as command_line
from docs import generate
from docs.generate import command, sdk, settings
from support import pages
from support.pages import Block, Unmarked
from support.processes import ROOT

DOCS = pages.written(ROOT / "docs")
PROFILES = {"all", "infra", "app", "monitoring"}
HOST_PROGRAMS = {"make", "sh", "docker", "systemctl", "journalctl", "python3", "cp", "/opt/upbeat/bin/pip"}


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return generate.pages()


def test_the_site_is_built_and_no_link_is_broken(made: dict[str, str], tmp_path: Path) -> None:
    for name, text in made.items():
        file = tmp_path / "build" / "docs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for image in (ROOT / "docs").glob("*.svg"):
        shutil.copy(image, tmp_path / "build" / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    build = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "build" / "site"
    listed = re.findall(r'"([\w/-]+)\.md"', (ROOT / "zensical.toml").read_text())
    assert sorted(f"{name}.md" for name in listed) == sorted(made)
    for name in listed:
        page = (site / f"{name}.html").read_text()
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?:', page), (
            f"{name} needs internet"
        )
        assert "```" not in re.sub(r"<code.*?</code>", "", page, flags=re.DOTALL), name


@pytest.mark.parametrize("name", DOCS)
def test_each_block_says_how_it_is_run(name: str) -> None:
    pages.blocks(DOCS[name])


@pytest.mark.parametrize("kind", ["", "yaml", "{.sh}", "bash", "{.python}"])
def test_a_block_that_does_not_is_found(kind: str) -> None:
    with pytest.raises(Unmarked):
        pages.blocks(f"# Page\n\n```{kind}\necho\n```\n")


@pytest.mark.parametrize("name", DOCS)
def test_what_needs_an_engine_names_what_there_is(name: str) -> None:
    for block in pages.blocks(DOCS[name]):
        if block.kind == "{.sh .host}":
            for words in pages.commands(block):
                assert known(words), words


@pytest.mark.parametrize(
    "line", ["make nothing", "docker compose -f deploy/compose.yaml --profile moon up", "systemctl start upbeat-x.service",
             "cp deploy/nothing /etc", "rm -rf /", "docker compose -f deploy/compose.yaml --profile all logs moon"],
)  # fmt: skip
def test_what_there_is_not_is_found(line: str) -> None:
    (words,) = pages.commands(Block("{.sh .host}", line))
    assert not known(words)


def known(words: list[str]) -> bool:
    """Whether targets, files, profiles, services and units that a command names exist."""
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return rest[0] in targets
    if program == "docker":
        return compose_knows(rest)
    if program in ("systemctl", "journalctl"):
        units = {re.sub(r"@\d+\.", "@.", word) for word in rest if word.startswith("upbeat")}
        return all((ROOT / "deploy" / "systemd" / unit).exists() for unit in units)
    paths = [word for word in rest if re.match(r"(deploy|requirements)/", word)]
    return program in HOST_PROGRAMS and all(list(ROOT.glob(path)) for path in paths)


def compose_knows(words: list[str]) -> bool:
    if words[:3] != ["compose", "-f", "deploy/compose.yaml"]:
        return False
    services = yaml.safe_load((ROOT / words[2]).read_text())["services"]
    rest = words[3:]
    while rest[0] == "--profile":
        if rest[1] not in PROFILES:
            return False
        rest = rest[2:]
    verb, *rest = rest
    if verb == "run":
        return rest[0] == "--rm" and rest[1] in services
    named = [word for word in rest if not word.startswith("-")]
    return verb in ("up", "build", "logs") and all(word.partition("=")[0] in services for word in named)


def test_the_reference_has_every_verb_variable_and_method(made: dict[str, str]) -> None:
    assert len(command.verbs()) > 35
    assert {"upbeat start", "upbeat schedules create", "upbeat users create"} <= command.verbs()
    assert {
        "DATABASE_URL",
        "UPBEAT_TOKEN",
        "UPBEAT_LOG_FILE_BYTES",
        "OTEL_SDK_DISABLED",
    } <= settings.variables()
    for name in settings.variables() - {"UPBEAT_FAILPOINTS"}:
        assert f"`{name}`" in made["reference/settings.md"]
    assert {"runs", "schedules", "tasks", "health"} <= {name for name, _ in sdk.resources()}
    assert "### `client.runs.list`" in made["reference/sdk.md"]
    assert "`POST /api/v1/scheduled-tasks`: operator" in made["reference/api.md"]
    assert "`catchup_window`" in made["reference/reasons.md"]
    assert str(command_line.info.help) in made["reference/cli.md"]

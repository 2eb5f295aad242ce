"""The two wheels, installed where nothing of this checkout is: the command works from them, migrations and all."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest

from support.processes import ROOT
from support.servers import Servers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each distribution's wheel, by its name."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "sdk"):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(build, cwd=project, check=True, capture_output=True)
    return {file.name.partition("-")[0]: file for file in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with both wheels; third parties' packages are those of this one."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", *map(str, wheels.values())], check=True)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture
def environment(servers: Servers, redis_url: str) -> Iterator[dict[str, str]]:
    name = servers.new_database(migrated=False)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("UPBEAT_", "PYTHON"))}
    yield inherited | {
        "DATABASE_URL": servers.postgres.url,
        "CELERY_DATABASE_NAME": name,
        "REDIS_URL": redis_url,
        "UPBEAT_PORT": "1",
        "UPBEAT_TOKEN": "of nobody",
    }
    servers.drop_database(name)


def test_the_wheels_say_what_they_need(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"upbeat", "upbeat_sdk"}
    needs = metadata(wheels["upbeat"]).get_all("Requires-Dist") or []
    assert metadata(wheels["upbeat_sdk"])["Version"].startswith("0.1.")
    assert "upbeat-sdk<0.2,>=0.1" in needs


def test_the_wheels_hold_what_belongs_to_them(wheels: dict[str, Path]) -> None:
    server, sdk = (ZipFile(wheels[name]).namelist() for name in ("upbeat", "upbeat_sdk"))
    assert {name.split("/")[0] for name in server} == {"app", "migrations", "upbeat-0.1.0.dist-info"}
    assert "upbeat_sdk/py.typed" in sdk
    for folder, names in (("app", server), ("migrations", server), ("sdk/src/upbeat_sdk", sdk)):
        written = {str(f.relative_to(ROOT)).removeprefix("sdk/src/") for f in (ROOT / folder).rglob("*.py")}
        assert written <= set(names)


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as opened:
        (name,) = (each for each in opened.namelist() if each.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(opened.read(name).decode())


def test_the_command_works_from_them(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    def upbeat(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(installed / "upbeat"), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert upbeat("--help").returncode == 0
    migrated = upbeat("migrate")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert "is up to date" in migrated.stdout
    # It speaks through the SDK, and nobody listens.
    asked = upbeat("tasks", "list")
    assert asked.returncode == 1
    assert "Is the API there?" in asked.stderr
    examined = upbeat("doctor", "--no-canary", "--json")
    found = {each["check"]: each for each in json.loads(examined.stdout)}
    assert examined.returncode == 3  # nothing runs
    assert found["migrations"]["verdict"] == "ok"
    assert "upbeat 0.1.0" in found["packages"]["found"]
    assert not list(tmp_path.rglob("*.py"))

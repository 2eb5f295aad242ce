"""What `deploy/` and the Dockerfile say, checked without an engine: linted, against its schema, and for what must hold."""

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.supervision import ACCOUNTING
from app.settings import Settings, WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PROGRAMS = Path(sys.executable).parent
MOST_EXPOSED = 20  # tenths, of 100, by systemd's own count


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


def test_the_dockerfile_passes_the_linter() -> None:
    done = run(PROGRAMS / "hadolint", "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_the_image_takes_nothing_that_is_not_let_in() -> None:
    """What is copied exists, and .dockerignore, which shuts everything else out, lets it in."""
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(\S+) ", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(let_in)
    assert all((ROOT / each).exists() for each in copied)
    assert (ROOT / ".dockerignore").read_text().splitlines()[0] == "*"


def test_the_image_is_of_hashed_packages_and_runs_as_nobody_with_a_health_check() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["10001:10001"]
    assert "HEALTHCHECK" in text
    assert not re.search(r"^(ARG|ENV).*(PASSWORD|SECRET|TOKEN|KEY)", text, re.MULTILINE)


def keeps_to_its_specification(file: Path) -> subprocess.CompletedProcess[str]:
    return run(PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def test_the_compose_file_keeps_to_its_specification(tmp_path: Path) -> None:
    done = keeps_to_its_specification(COMPOSE)
    assert done.returncode == 0, done.stdout
    planted = tmp_path / "compose.yaml"
    planted.write_text(COMPOSE.read_text().replace("healthcheck:", "health_check:"))
    assert keeps_to_its_specification(planted).returncode == 1


def test_only_loopback_is_published(compose: dict[str, Any]) -> None:
    published = [port for each in compose["services"].values() for port in each.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_nothing_runs_before_the_migration_has_succeeded(compose: dict[str, Any]) -> None:
    for name in ("api", "worker", "beat"):
        needs = compose["services"][name]["depends_on"]
        assert needs["migrate"] == {"condition": "service_completed_successfully"}
        for server in ("postgres", "redis"):
            assert needs[server] == {"condition": "service_healthy", "required": False}


def test_profiles_are_whole(compose: dict[str, Any]) -> None:
    """A service that another one cannot do without has all its profiles."""
    services = compose["services"]
    profiles = {name: set(each["profiles"]) for name, each in services.items()}
    assert set().union(*profiles.values()) == {"all", "infra", "app", "monitoring"}
    for name, each in services.items():
        for other, how in each.get("depends_on", {}).items():
            if how.get("required", True):
                assert profiles[name] <= profiles[other], (name, other)


def test_our_services_may_do_little_and_are_watched(compose: dict[str, Any]) -> None:
    for name in ("api", "worker", "beat", "migrate"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    watched = {name for name, each in compose["services"].items() if "healthcheck" in each}
    # The API's is the image's own, and the migration ends.
    assert watched == set(compose["services"]) - {"api", "migrate"}


def test_a_worker_gets_the_time_that_draining_takes(compose: dict[str, Any]) -> None:
    drain = WorkerSettings.model_fields["drain_timeout"].default + ACCOUNTING
    assert seconds(compose["services"]["worker"]["stop_grace_period"]) > drain
    assert int(unit("upbeat-worker@.service")["Service"]["TimeoutStopSec"]) > drain


def test_redis_keeps_its_data_and_evicts_nothing(compose: dict[str, Any]) -> None:
    command = compose["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    assert options["--aclfile"] == "/run/secrets/redis_users"


def test_each_secret_is_a_file_that_the_script_makes(compose: dict[str, Any], tmp_path: Path) -> None:
    made = tmp_path / "secrets"
    script = ("env", f"SECRETS={made}", "sh", DEPLOY / "make-secrets.sh")
    assert run(*script).returncode == 0
    files = {file.name: file.read_text() for file in made.iterdir()}
    assert (
        set(files)
        == {Path(each["file"]).name for each in compose["secrets"].values()}
        == set(compose["secrets"])
    )
    used = {
        each if isinstance(each, str) else each["source"]
        for service in compose["services"].values()
        for each in service.get("secrets", [])
    }
    assert used == set(files)
    assert all(len(text) >= 40 for text in files.values())
    assert len(set(files.values())) == len(files)
    assert made.stat().st_mode & 0o777 == 0o700
    # What follows from the rest, and from a release that changes it, is made anew.
    (made / "redis_users").write_text("of the release before")
    again = run(*script)
    assert (again.returncode, again.stdout) == (0, "")
    assert {file.name: file.read_text() for file in made.iterdir()} == files
    assert not any(text in COMPOSE.read_text() for text in files.values())


def unit(name: str) -> RawConfigParser:
    class Units(dict[str, Any]):
        """Options that are given several times are added up."""

        def __setitem__(self, key: str, value: Any) -> None:
            if key in self and isinstance(value, list):
                value = [*self[key], *value]
            super().__setitem__(key, value)

    parser = RawConfigParser(strict=False, dict_type=Units, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "systemd" / name)
    return parser


def test_a_worker_is_stopped_warm() -> None:
    """The main process alone gets the signal: it lets its children end their runs."""
    service = unit("upbeat-worker@.service")["Service"]
    assert (service["KillSignal"], service["KillMode"], service["Restart"]) == ("SIGTERM", "mixed", "always")


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_each_unit_is_hardened_and_has_its_secrets_from_files(file: Path) -> None:
    service = unit(file.name)["Service"]
    assert service["User"] == "upbeat"
    for option in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictNamespaces"):
        assert service[option] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert "LoadCredential=DATABASE_URL:" in file.read_text()
    assert not re.search(r"^Environment=", file.read_text(), re.MULTILINE)


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_each_unit_is_given_what_production_demands(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "DATABASE_URL": "postgresql://upbeat_api:correct-horse@db.internal/postgres",
        "REDIS_URL": "redis://:correct-horse@redis.internal:6379/0",
        "UPBEAT_SECRET_KEYS": "a key",
    }
    for name in re.findall(r"^LoadCredential=(\w+):", file.read_text(), re.MULTILINE):
        (tmp_path / name).write_text(values[name])
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for line in (DEPLOY / "systemd" / "upbeat.env").read_text().splitlines():
        if not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", 1))
    settings = Settings()
    assert settings.deployment.production
    settings.require_production()


def test_systemd_understands_the_units_and_finds_them_closed(tmp_path: Path) -> None:
    """By its own checker, where the system has it: the programs' folder stands for /opt/upbeat/bin."""
    units = [*UNITS, DEPLOY / "systemd" / "upbeat.target"]
    program = tmp_path / "bin" / "program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for file in units:
        (tmp_path / file.name).write_text(re.sub(r"/opt/upbeat/bin/\w+", str(program), file.read_text()))
    names = [tmp_path / file.name.replace("@.", "@1.") for file in units]
    if shutil.which("systemd-analyze") is None:
        assert all("ExecStart=/opt/upbeat/bin/" in file.read_text() for file in UNITS)
        return
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *names)
    assert (done.returncode, done.stderr) == (0, "")
    services = [name for name in names if name.suffix == ".service"]
    security = ("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager")
    closed = run("systemd-analyze", *security, *services)
    assert closed.returncode == 0, closed.stdout

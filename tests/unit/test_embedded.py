"""The embedded servers' preparation and the supervisor's configuration, without starting anything."""

import configparser
import json
import socket
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.cli.banner import PLACEHOLDER, banner
from app.cli.embedded import LOOPBACK, Postgres, Redis, find_postgres, free_port, port_is_free
from app.cli.prepare import Administrator
from app.cli.reach import names_broker, names_database, reach_database, reach_redis
from app.cli.state import LONGEST_SOCKET_PATH, AlreadyRunning, State, write_private
from app.cli.supervision import Program, render, server_programs, service_programs
from app.errors import ConfigurationError
from app.sealing import Sealer
from app.settings import ApiSettings, AuthSettings, BrokerSettings, DatabaseSettings, Settings

SECRET = "secret-that-nobody-may-see"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_taken_port_is_seen() -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        assert not port_is_free(listener.getsockname()[1])
    assert port_is_free(free_port())


def test_an_unknown_postgres_is_named_with_its_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"embedded PostgreSQL 9 .* or set DATABASE_URL"):
        find_postgres(9)


def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("15\n")
    with pytest.raises(ConfigurationError, match="was made by PostgreSQL 15, the embedded one is 18"):
        Postgres(tmp_path, 1, SECRET).initialise()


def test_passwords_are_in_no_command_and_no_representation(tmp_path: Path) -> None:
    postgres, redis = Postgres(tmp_path / "p", 1, SECRET), Redis(tmp_path / "r", 2, SECRET)
    redis.initialise()
    for server in (postgres, redis):
        assert SECRET not in repr(server)
        assert SECRET not in " ".join(server.command())
    assert mode(tmp_path / "r" / "redis.conf") == 0o600


def test_ports_and_passwords_are_remembered_and_a_taken_port_is_chosen_anew(folder: Path) -> None:
    state = State.open()
    postgres, redis = state.servers()
    assert state.servers() == (postgres, redis)
    with socket.socket() as listener:
        listener.bind((LOOPBACK, postgres.port))
        listener.listen()
        moved, same = state.servers()
    assert moved.port != postgres.port
    assert (moved.password, same) == (postgres.password, redis)
    assert mode(folder / ".upbeat") == 0o700
    assert mode(folder / ".upbeat" / "servers.json") == 0o600
    assert set(json.loads((folder / ".upbeat" / "servers.json").read_text())) == {"postgres", "redis"}


def test_a_second_start_in_the_folder_is_refused(folder: Path) -> None:
    State.open()
    with pytest.raises(AlreadyRunning, match="already running in this folder"):
        State.open()


@pytest.mark.parametrize("name", ["with ;semicolon", "with #hash"])
def test_a_path_that_the_supervisor_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(ConfigurationError, match="Use a folder without them"):
        State.open()


def test_the_control_socket_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.chdir(deep)
    state = State.open()
    path = state.socket()
    assert len(str(path)) <= LONGEST_SOCKET_PATH
    assert mode(path.parent) == 0o700
    again = state.socket()
    assert not path.parent.exists(), "that of a start that was killed goes with the next one"
    state.discard_socket(again)
    assert not again.parent.exists()


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)


def test_the_configuration_starts_servers_first_and_stops_them_last(folder: Path) -> None:
    settings = Settings(api=ApiSettings(port=8123, graceful_shutdown=7))
    postgres, redis = Postgres(folder / "100%", 1, SECRET), Redis(folder / "r", 2, SECRET)
    programs = [*server_programs(folder, postgres, redis), *service_programs(folder, settings)]
    text = render(programs, folder, folder / "s.sock", settings.log)
    config = configparser.RawConfigParser()
    config.read_string(text)
    order = sorted(
        (section for section in config if section.startswith("program:")),
        key=lambda section: config.getint(section, "priority"),
    )
    assert order == [f"program:{name}" for name in ("postgres", "redis", "worker", "beat", "api")]
    assert "100%%" in config["program:postgres"]["command"]
    assert "--port 8123 --timeout-graceful-shutdown 7" in config["program:api"]["command"]
    assert config.getint("program:api", "stopwaitsecs") > 7
    assert SECRET not in text


def test_named_servers_are_not_embedded(folder: Path) -> None:
    settings = Settings(
        database=DatabaseSettings(DATABASE_URL=SecretStr("postgresql://u:p@h/d")),
        broker=BrokerSettings(CELERY_BROKER_URL=SecretStr("redis://h")),
    )
    assert (names_database(settings), names_broker(settings)) == (True, True)
    assert (names_database(Settings()), names_broker(Settings())) == (False, False)
    assert server_programs(folder, None, None) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"postgresql://u:{SECRET}@127.0.0.1:{{port}}/d", "PostgreSQL at 127.0.0.1:.* Connection refused"),
        (f"postgresql://u:{SECRET}@nowhere.invalid/d", "PostgreSQL at nowhere.invalid:5432"),
        (f"mysql://u:{SECRET}@127.0.0.1/d", "DATABASE_URL names mysql"),
    ],
)
def test_an_unreachable_database_is_named_without_its_password(url: str, message: str) -> None:
    address = SecretStr(url.format(port=free_port()))
    with pytest.raises(ConfigurationError, match=message) as caught:
        reach_database(Settings(database=DatabaseSettings(DATABASE_URL=address)))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"redis://:{SECRET}@127.0.0.1:{{port}}/0", r"Redis at 127.0.0.1:\d+ .* cannot be used"),
        (f"http://:{SECRET}@127.0.0.1", "REDIS_URL is not an address"),
    ],
)
def test_an_unreachable_redis_is_named_without_its_password(url: str, message: str) -> None:
    address = SecretStr(url.format(port=free_port()))
    with pytest.raises(ConfigurationError, match=message) as caught:
        reach_redis(Settings(broker=BrokerSettings(REDIS_URL=address)))
    assert SECRET not in str(caught.value)


def test_the_generated_password_is_shown_once() -> None:
    first = banner(Settings(), Administrator("admin", SECRET, generated=True))
    later = banner(Settings(), Administrator("admin", None, generated=True))
    assert first.count(SECRET) == 2  # the login, and the command to try
    assert "shown only now" in first
    assert PLACEHOLDER in later
    assert "users create" in later


def test_a_given_password_is_not_shown() -> None:
    settings = Settings(auth=AuthSettings(admin_password=SecretStr(SECRET)))
    for known in (SECRET, None):
        assert SECRET not in banner(settings, Administrator("admin", known, generated=False))


def test_a_program_has_a_log_of_its_own(folder: Path) -> None:
    programs: list[Program] = service_programs(folder, Settings())
    assert len({program.log for program in programs}) == len(programs)


def test_the_key_for_secrets_is_made_once_and_kept_closed_to_others(folder: Path) -> None:
    state = State.open()
    keys = state.secret_keys()
    assert Sealer([keys]).open(Sealer([keys]).seal("x")) == "x"
    assert state.secret_keys() == keys
    assert mode(folder / ".upbeat" / "secret_keys") == 0o600

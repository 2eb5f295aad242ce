"""A variable may be a file of its name: in a container's folder of secrets, or in systemd's of credentials."""

from pathlib import Path

import pytest

from app import settings
from app.settings import Settings

URL = "postgresql://upbeat_api:from-a-file@db.internal:5432/postgres"


def secret_of(found: Settings) -> str | None:
    return None if found.database.url is None else found.database.url.get_secret_value()


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setattr(settings, "CONTAINER_SECRETS", folder)
    return folder


def test_a_container_s_files_are_read(container: Path) -> None:
    (container / "DATABASE_URL").write_text(URL + "\n")
    (container / "UPBEAT_SECRET_KEYS").write_text("one,two\n")
    (container / "UPBEAT_METRICS_TOKEN").write_text("the token")
    found = Settings()
    assert secret_of(found) == URL
    assert found.secret.each() == ("one", "two")
    assert found.metrics.token is not None
    assert found.metrics.token.get_secret_value() == "the token"
    assert "from-a-file" not in repr(found)


def test_systemd_s_credentials_are_read_before_them(
    container: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (container / "DATABASE_URL").write_text("postgresql://other@db.internal/postgres")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "DATABASE_URL").write_text(URL)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert secret_of(Settings()) == URL


def test_the_environment_goes_before_files(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (container / "DATABASE_URL").write_text(URL)
    monkeypatch.setenv("DATABASE_URL", "postgresql://given@db.internal/postgres")
    assert secret_of(Settings()) == "postgresql://given@db.internal/postgres"


def test_folders_that_are_not_there_are_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CONTAINER_SECRETS", tmp_path / "none")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "gone"))
    assert secret_of(Settings()) is None

"""What is blacked out before a line is stored."""

import time

import pytest

from app.settings import Settings
from app.worker.redaction import Redactor

redact = Redactor()


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: ***"),
        ('{"authorization": "Basic dXNlcjpwYXNz", "x": 1}', '{"authorization": "***", "x": 1}'),
        ("sent with bearer abcdefghij", "sent with bearer ***"),
        ("password=hunter2 user=joe", "password=*** user=joe"),
        ("PASSWORD: hunter2", "PASSWORD: ***"),
        ("db_password='hunter 2', next", "db_password='***', next"),
        ('{"api_key": "k-1", "name": "n"}', '{"api_key": "***", "name": "n"}'),
        (r'"{\"client_secret\": \"s-1\", \"a\": 1}"', r'"{\"client_secret\": \"***\", \"a\": 1}"'),
        ("{'access_token': 'it''s', 'b': 2}", "{'access_token': '***''s', 'b': 2}"),
        ("https://h/?token=abc&x=1", "https://h/?token=***&x=1"),
        ("X-Api-Key: abc", "X-Api-Key: ***"),
        ("postgresql://upbeat:p%40ss@host:5432/db", "postgresql://***@host:5432/db"),
        ("redis://:secret@host/0", "redis://***@host/0"),
        ("https://token@host/path", "https://***@host/path"),
        ("password='never ended", "password='***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "*** RSA PRIVATE KEY-----"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "got ***"),
        ("key sk-abcdefghijklmnop1234", "key ***"),
    ],
)
def test_secrets_are_blacked_out(written: str, stored: str) -> None:
    assert redact(written) == stored


@pytest.mark.parametrize(
    "written",
    [
        "max_tokens: 100 were used",
        "the password was changed",
        "see https://example.org/a?mail=a@b.c",
        "ratio 3:4, key 5, mail joe@example.org",
        "tokens=5",
        "basic types",
    ],
)
def test_the_rest_stays(written: str) -> None:
    assert redact(written) == written


def test_known_secrets_and_further_expressions() -> None:
    own = Redactor(patterns=[r"IBAN \w+"], literals=["correct horse", "abc"])
    assert own("say correct horse, IBAN DE123, abc") == "say ***, ***, abc"


def test_the_settings_bring_the_passwords_of_our_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "p1bWkuqWlHPtyWcrIXPUDHvJ4RYy3cvkCq8Y3iIC1cQ="
    monkeypatch.setenv("DATABASE_URL", "postgresql://upbeat:tr0ub%40dor@host/postgres")
    monkeypatch.setenv("REDIS_URL", "redis://:h0rse@host/0")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://upbeat:st4ple@host/0")
    monkeypatch.setenv("UPBEAT_SECRET_KEYS", key)
    monkeypatch.setenv("UPBEAT_API_KEY", "upb_abcdefgh")
    monkeypatch.setenv("UPBEAT_LOG_REDACT", r'["order \\d+"]')
    black = Redactor.of(Settings())
    assert black("tr0ub@dor and tr0ub%40dor for order 17") == "*** and *** for ***"
    assert black(f"h0rse st4ple {key} upb_abcdefgh") == "*** *** *** ***"


@pytest.mark.parametrize("text", ["token" * 13_000, "password='" * 6_000, "a://" * 16_000, "x_key=" * 10_000])
def test_a_hostile_line_takes_bounded_time(text: str) -> None:
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 2.0

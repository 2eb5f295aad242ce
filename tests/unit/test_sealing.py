"""Secrets at rest."""

import pytest

from app.errors import ConfigurationError
from app.sealing import Sealer, SecretKeysUnfit, new_key
from app.settings import SecretSettings


def test_what_was_sealed_is_opened_and_not_readable_meanwhile() -> None:
    sealer = Sealer([new_key()])
    sealed = sealer.seal("sk-密")
    assert b"sk-" not in sealed
    assert sealer.seal("sk-密") != sealed
    assert sealer.open(sealed) == "sk-密"


def test_a_new_key_in_front_opens_what_the_old_one_sealed_and_reseals_it() -> None:
    old, new = new_key(), new_key()
    sealed = Sealer([old]).seal("secret")
    both = Sealer([new, old])
    assert both.open(sealed) == "secret"
    resealed = both.reseal(sealed)
    assert Sealer([new]).open(resealed) == "secret"
    with pytest.raises(SecretKeysUnfit):
        Sealer([new]).open(sealed)


@pytest.mark.parametrize("work", ["seal", "open", "reseal"])
def test_without_keys_nothing_is_kept_and_the_message_says_what_to_do(work: str) -> None:
    sealer = Sealer([])
    with pytest.raises(ConfigurationError, match=r"UPBEAT_SECRET_KEYS.*python -m app\.sealing"):
        sealer.seal("x") if work == "seal" else getattr(sealer, work)(b"x")


def test_a_key_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Sealer([new_key(), "swordfish"])
    assert "swordfish" not in str(refused.value)


def test_a_damaged_secret_is_not_opened() -> None:
    sealer = Sealer([new_key()])
    with pytest.raises(SecretKeysUnfit):
        sealer.reseal(sealer.seal("x")[:-1] + b"x")


def test_keys_are_read_from_the_environment_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPBEAT_SECRET_KEYS", " one , two ,")
    settings = SecretSettings()
    assert settings.each() == ("one", "two")
    assert "one" not in repr(settings)

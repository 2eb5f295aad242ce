"""Secrets at rest: sealed before they are stored, opened only to be used.

Fernet (AES-128-CBC with HMAC-SHA256) with the keys of `UPBEAT_SECRET_KEYS`, newest first. To change
keys, put a new one in front, restart, reseal what is stored (`Sealer.reseal`), and drop the old one.
"""

from collections.abc import Iterable

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.errors import ConfigurationError

_HOW_TO = (
    "Make a key with `python -m app.sealing` and set UPBEAT_SECRET_KEYS to it, for the API and the workers."
)


class SecretKeysUnfit(ConfigurationError):
    """A secret must be sealed or opened, and the keys that are set cannot do it."""

    code = "secret_keys_unfit"
    status = 503
    title = "The service lacks the keys for its secrets"


def new_key() -> str:
    """A fresh key."""
    return Fernet.generate_key().decode()


class Sealer:
    """Seals and opens texts. Without keys it exists, and refuses to work."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Raises ConfigurationError if a key is not one; the message does not repeat it."""
        try:
            fernets = [Fernet(key) for key in keys]
        except ValueError as error:
            raise ConfigurationError(
                f"UPBEAT_SECRET_KEYS: a key is not 32 bytes in URL-safe base64. {_HOW_TO}"
            ) from error
        self._fernet = MultiFernet(fernets) if fernets else None

    def seal(self, text: str) -> bytes:
        """The text, encrypted with the newest key.

        Raises:
            SecretKeysUnfit: there are no keys.
        """
        return self._keys().encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """The text that was sealed.

        Raises:
            SecretKeysUnfit: there are no keys, or none of them sealed this.
        """
        try:
            return self._keys().decrypt(sealed).decode()
        except InvalidToken as error:
            raise _foreign() from error

    def reseal(self, sealed: bytes) -> bytes:
        """The same text, encrypted with the newest key; errors as `open`."""
        try:
            return self._keys().rotate(sealed)
        except InvalidToken as error:
            raise _foreign() from error

    def _keys(self) -> MultiFernet:
        if self._fernet is None:
            raise SecretKeysUnfit(f"UPBEAT_SECRET_KEYS is not set, so no secret can be kept. {_HOW_TO}")
        return self._fernet


def _foreign() -> SecretKeysUnfit:
    return SecretKeysUnfit(
        "A stored secret was sealed with a key that UPBEAT_SECRET_KEYS does not have."
        " Add the earlier key behind the newest, or store the secret again."
    )


if __name__ == "__main__":
    print(new_key())  # noqa: T201

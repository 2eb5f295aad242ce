"""Where the service is, who calls, and how patiently. Its repr shows no secret."""

import os
from dataclasses import dataclass, field
from typing import Final

import httpx

from upbeat_sdk._errors import ConfigurationError

DEFAULT_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
DEFAULT_MAX_RETRIES: Final = 3
DEFAULT_BACKOFF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Credential:
    """A bearer token (a session's, or an API key), or a username and a password to get one with."""

    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def renewable(self) -> bool:
        """Whether a new token can be had by logging in."""
        return self.username is not None


@dataclass(frozen=True, slots=True)
class Settings:
    """``backoff`` is the longest first pause in seconds; it doubles with each further one."""

    url: str
    credential: Credential
    timeout: httpx.Timeout
    max_retries: int
    backoff: float = DEFAULT_BACKOFF


def settings_from(
    *,
    url: str | None,
    token: str | None,
    api_key: str | None,
    username: str | None,
    password: str | None,
    timeout: float | httpx.Timeout,
    max_retries: int,
) -> Settings:
    """From arguments, else from `UPBEAT_URL`, and from `UPBEAT_TOKEN` or `UPBEAT_API_KEY` if none is given.

    Raises:
        ConfigurationError: no address, or more than one credential, or half of one.
    """
    if max_retries < 0:
        raise ConfigurationError("max_retries must not be negative")
    return Settings(
        _url(url or os.environ.get("UPBEAT_URL")),
        _credential(token, api_key, username, password),
        timeout if isinstance(timeout, httpx.Timeout) else httpx.Timeout(timeout),
        max_retries,
    )


def _url(given: str | None) -> str:
    if not given:
        raise ConfigurationError("Where is the service? Give url=…, or set UPBEAT_URL.")
    try:
        url = httpx.URL(given)
    except httpx.InvalidURL:
        raise ConfigurationError(
            "The url cannot be read; it looks like https://upbeat.example.com."
        ) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("The url must begin with http:// or https:// and name a host.")
    if url.userinfo:
        raise ConfigurationError("Give the credential as token=, api_key= or password=, not in the url.")
    if url.query or url.fragment:
        raise ConfigurationError("The url must not have a query or a fragment.")
    if "/api/v1" in url.path:
        raise ConfigurationError("Give the url without /api/v1: it is part of every call's path.")
    return str(url).rstrip("/")


def _credential(
    token: str | None, api_key: str | None, username: str | None, password: str | None
) -> Credential:
    if (username is None) != (password is None):
        raise ConfigurationError("Give username= and password= together.")
    given = [value for value in (token, api_key, username) if value is not None]
    if len(given) > 1:
        raise ConfigurationError("Give one credential: token=, api_key=, or username= and password=.")
    if username is not None:
        return Credential(username=username, password=password)
    bearer = given[0] if given else os.environ.get("UPBEAT_TOKEN") or os.environ.get("UPBEAT_API_KEY")
    if bearer is not None and not (bearer.isascii() and bearer.isprintable() and bearer.strip() == bearer):
        raise ConfigurationError("The token must be printable ASCII without spaces around it.")
    return Credential(token=bearer or None)

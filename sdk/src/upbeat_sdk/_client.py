"""The two clients."""

from typing import Self

import httpx

from upbeat_sdk._generated.async_resources import AsyncResources
from upbeat_sdk._generated.resources import Resources
from upbeat_sdk._settings import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, settings_from


class Upbeat(Resources):
    """A client of the service: `Upbeat("https://upbeat.example.com", token=…).runs.list()`.

    ``url`` and ``token`` default to `UPBEAT_URL` and `UPBEAT_TOKEN`. In place of a token, give
    ``api_key``, or ``username`` and ``password``, with which it logs in when it needs to.
    ``timeout`` is in seconds. An ``http_client`` of your own is used and never closed.

    Raises:
        ConfigurationError: no address, or more than one credential.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        api_key: str | None = None,
        username: str | None = None,
        password: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
        http_client: httpx.Client | None = None,
    ) -> None:
        settings = settings_from(
            url=url,
            token=token,
            api_key=api_key,
            username=username,
            password=password,
            timeout=timeout,
            max_retries=max_retries,
        )
        super().__init__(settings, http_client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncUpbeat(AsyncResources):
    """As `Upbeat`; its methods are awaited, and its listings also walked by `async for`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        api_key: str | None = None,
        username: str | None = None,
        password: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        settings = settings_from(
            url=url,
            token=token,
            api_key=api_key,
            username=username,
            password=password,
            timeout=timeout,
            max_retries=max_retries,
        )
        super().__init__(settings, http_client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

"""What `upbeat up` says on the terminal. The generated password appears here once, and in no log."""

import shlex
import time
from typing import TYPE_CHECKING

from app.cli.embedded import LOOPBACK
from app.settings import Settings

if TYPE_CHECKING:
    from app.cli.prepare import Administrator  # which loads all of the service

PLACEHOLDER = "YOUR-PASSWORD"


def say(text: str) -> None:
    print(text, flush=True)


def event(text: str) -> None:
    """One line of the running stack, with the local time."""
    say(f"{time.strftime('%H:%M:%S')}  {text}")


def banner(settings: Settings, administrator: "Administrator") -> str:
    """Where everything is, how to log in, and two commands that work when pasted."""
    url = f"http://{LOOPBACK}:{settings.api.port}"
    password = _password(administrator)
    form = f"--data-urlencode {shlex.quote(f'username={administrator.username}')}"
    form += f' --data-urlencode "password={password}"'
    lines = [
        "",
        "Upbeat is running.",
        "",
        f"  API        {url}/api/v1",
        *([f"  Docs       {url}/docs"] if settings.api.docs_enabled else []),
        f"  Login      {administrator.username} / {_login(administrator)}",
        "  Logs       logs/api.log, logs/celery/worker.log, logs/celery/beat.log",
        "",
        "Try it: the newest runs of the demonstration schedule"
        + (f" (put your password for {PLACEHOLDER})" if password == PLACEHOLDER else ""),
        "",
        f'  TOKEN=$(curl -s {url}/api/v1/auth/login {form} | sed \'s/.*"access_token":"\\([^"]*\\)".*/\\1/\')',
        f'  curl -s -H "Authorization: Bearer $TOKEN" "{url}/api/v1/runs?limit=3"',
        "",
        "Ctrl-C stops everything; the data stays in .upbeat/.",
        "",
    ]
    return "\n".join(lines)


def _password(administrator: "Administrator") -> str:
    """As it stands in the command: generated ones need no quoting, given ones stay in their variable."""
    if administrator.password is None:
        return PLACEHOLDER
    return administrator.password if administrator.generated else "$UPBEAT_ADMIN_PASSWORD"


def _login(administrator: "Administrator") -> str:
    if administrator.password is not None:
        if administrator.generated:
            return f"{administrator.password}   (shown only now; keep it)"
        return "the password in UPBEAT_ADMIN_PASSWORD"
    if not administrator.generated:
        return "the password this account was made with (UPBEAT_ADMIN_PASSWORD is used at the first start)"
    return (
        "the password shown at the first start"
        " (lost? Make another account: .venv/bin/python -m app.cli users create NAME --role admin)"
    )

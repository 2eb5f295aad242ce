"""Secrets blacked out before a line is stored: a filter for accidents, not a licence to log secrets.

Blacked out are authorization headers, the values of keys that end in `_key`, `secret`, `password`,
`passwd`, `token` or `cookie` (in `key=value`, JSON and header form), userinfo in URLs, private keys,
JSON web tokens and the usual prefixed API keys, the secrets of our own settings (the servers' passwords, the
administrator's, `UPBEAT_SECRET_KEYS` and the tokens), and what `UPBEAT_LOG_REDACT` names.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from app.settings import Settings

BLACK = "***"

# Only keys' ends are matched, so nothing here looks back over a long word again and again.
_KEY = r"(?:[_-]key|apikey|secret|password|passwd|token|cookie)"
_QUOTE = r"\\?[\"']"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END|\Z)", re.DOTALL), BLACK),
    (
        re.compile(rf"(?i)(authorization(?:{_QUOTE})?\s*[:=]\s*(?:{_QUOTE})?)(?:[a-z]+\s+)?[^\s\"',;}}]+"),
        rf"\1{BLACK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"), rf"\1 {BLACK}"),
    (re.compile(rf"(?i)({_KEY}(?:{_QUOTE})?\s*[:=]\s*)({_QUOTE})(?:(?!\2).)*(\2|$)"), rf"\1\2{BLACK}\3"),
    (re.compile(rf"(?i)({_KEY}(?:{_QUOTE})?\s*[:=]\s*)(?!{_QUOTE})[^\s,;&}}\])]+"), rf"\1{BLACK}"),
    (re.compile(r"(?i)([a-z][a-z0-9+.-]{0,20}://)[^\s/?#\"']+@"), rf"\1{BLACK}@"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"), BLACK),
    (re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|github_pat|xox[abpr])[-_][\w-]{16,}"), BLACK),
)
# One look tells that a line holds nothing of that kind, as nearly all do.
_HINT = re.compile(
    rf"(?i){_KEY}|authorization|bearer|basic|://|eyJ|PRIVATE KEY|\b(?:sk|pk|rk|gh[pos]|github_pat|xox[abpr])[-_]"
)


class Redactor:
    """Blacks out what must not be stored. ``literals`` are known secrets, ``patterns`` further expressions."""

    def __init__(self, patterns: Iterable[str] = (), literals: Iterable[str] = ()) -> None:
        self._patterns = tuple(re.compile(each) for each in patterns)
        self._literals = tuple(each for each in literals if len(each) >= 4)

    @classmethod
    def of(cls, settings: Settings) -> "Redactor":
        """The redactor of a process with these settings."""
        secrets = [settings.auth.admin_password, settings.metrics.token, settings.api.token]
        literals = [each.get_secret_value() for each in secrets if each is not None]
        literals.extend(settings.secret.each())
        for url in (settings.database.url, settings.broker.redis_url, settings.broker.celery_url):
            # Whoever needs an address says what is wrong with it.
            with suppress(ValueError):
                written = urlsplit(url.get_secret_value()).password if url is not None else None
                literals.extend({written, unquote(written)} if written else ())
        # One may be part of another.
        return cls(settings.log.redact, sorted(literals, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """``text`` without its secrets."""
        for literal in self._literals:
            text = text.replace(literal, BLACK)
        if _HINT.search(text):
            for rule, black in _RULES:
                text = rule.sub(black, text)
        for pattern in self._patterns:
            text = pattern.sub(BLACK, text)
        return text

"""What is kept of a call: bounded, and without secrets."""

import json
import math
import re
from typing import Final

MAX_REQUEST: Final = 16_384
MAX_REPLY: Final = 65_536
MAX_ERROR: Final = 1_000
REDACTED: Final = "[redacted]"

_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}")
_CUT = " … [cut]"


def redact(text: str, secret: str | None) -> str:
    """The text without this secret, however it is written, and without what looks like another one."""
    if secret:
        for form in {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}:
            text = text.replace(form, REDACTED)
    return _BEARER.sub(rf"\1 {REDACTED}", text)


def keep(text: str, limit: int, secret: str | None) -> str:
    """What is stored of a text: storable, redacted, and at most ``limit`` characters."""
    clean = redact(text, secret).replace("\0", "�").encode("utf-8", "replace").decode()
    return clean if len(clean) <= limit else clean[: limit - len(_CUT)] + _CUT


def estimate_tokens(*texts: str | None) -> int:
    """About how many tokens these are, rather too many: a token is seldom fewer than three bytes."""
    return sum(math.ceil(len(text.encode("utf-8", "replace")) / 3) for text in texts if text)

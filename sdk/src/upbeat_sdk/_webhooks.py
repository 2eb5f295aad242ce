"""For receivers of webhooks: is this delivery Upbeat's, whole and fresh?

    from upbeat_sdk import verify_webhook

    event = verify_webhook(request.body, request.headers, secret)
    if event.id not in seen: …

The scheme is that of the Standard Webhooks specification, so any library for it does as well.
"""

import hmac
import json
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from upbeat_sdk._errors import WebhookRefused

TOLERANCE: Final = 300.0
_PREFIX: Final = "whsec_"
_VERSION: Final = "v1,"


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What was told. ``id`` is the same when it is delivered again: remember those of the last minutes."""

    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> WebhookEvent:
    """The event of a delivery, whose ``body`` must be as it came, not parsed and written again.

    ``tolerance`` is how many seconds its timestamp may differ from ``now`` (the clock's, when it is None).

    Raises:
        WebhookRefused: it cannot be trusted.
    """
    raw = body.encode() if isinstance(body, str) else body
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, stamp, signatures = (
            given[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
    except KeyError as missing:
        raise WebhookRefused(f"The header {missing} is missing.") from None
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 13):
        raise WebhookRefused("webhook-timestamp is no number of seconds.")
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        raise WebhookRefused(f"webhook-timestamp is more than {tolerance:g} s off.")
    wanted = sign_webhook(secret, message_id, int(stamp), raw).encode()
    if not any(hmac.compare_digest(wanted, each.encode()) for each in signatures.split(" ")):
        raise WebhookRefused("No signature fits: another secret, or a changed body.")
    return _read(message_id, raw)


def sign_webhook(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of a delivery, for tests of receivers; ``timestamp`` in seconds since the epoch.

    Raises:
        ValueError: the secret is not one.
    """
    try:
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except Base64Error:
        raise ValueError(
            "A secret is whsec_ and base64, as it was shown when the webhook was made."
        ) from None
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"{_VERSION}{b64encode(hmac.new(key, signed, sha256).digest()).decode()}"


def _read(message_id: str, raw: bytes) -> WebhookEvent:
    try:
        document = json.loads(raw)
        at = datetime.fromisoformat(document["timestamp"])
        return WebhookEvent(message_id, document["type"], at, document["data"])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WebhookRefused("The signature fits, and the body is none of Upbeat's.") from None

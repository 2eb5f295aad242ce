"""Receivers of webhooks tell Upbeat's deliveries from others."""

from datetime import UTC, datetime

import pytest

from upbeat_sdk import WebhookEvent, WebhookRefused, sign_webhook, verify_webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgMTIz"
BODY = '{"type":"run.failed","timestamp":"2026-03-01T09:10:00Z","data":{"run_id":"ü"}}'.encode()
NOW = 1_772_356_200
ID = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"


def headers(secret: str = SECRET, body: bytes = BODY) -> dict[str, str]:
    return {
        "Webhook-Id": ID,
        "Webhook-Timestamp": str(NOW),
        "Webhook-Signature": sign_webhook(secret, ID, NOW, body),
    }


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in headers().items() if key != name}


def test_the_scheme_is_the_specifications() -> None:
    # The example of the Standard Webhooks specification.
    body = b'{"test": 2432232314}'
    signature = sign_webhook(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_delivery_is_read() -> None:
    for body in (BODY, BODY.decode()):
        assert verify_webhook(body, headers(), SECRET, now=NOW) == WebhookEvent(
            ID, "run.failed", datetime(2026, 3, 1, 9, 10, tzinfo=UTC), {"run_id": "ü"}
        )


def test_one_of_several_signatures_is_enough() -> None:
    both = f"{sign_webhook(OTHER, ID, NOW, BODY)} v1a,xyz {sign_webhook(SECRET, ID, NOW, BODY)}"
    given = headers() | {"Webhook-Signature": both}
    assert verify_webhook(BODY, given, SECRET, now=NOW).id == ID


@pytest.mark.parametrize(
    ("given", "body", "now", "said"),
    [
        (headers(OTHER), BODY, NOW, "No signature fits"),
        (headers(), BODY + b" ", NOW, "No signature fits"),
        (headers() | {"Webhook-Id": "another"}, BODY, NOW, "No signature fits"),
        (headers() | {"Webhook-Timestamp": str(NOW + 1)}, BODY, NOW, "No signature fits"),
        (headers() | {"Webhook-Signature": "v1,ü"}, BODY, NOW, "No signature fits"),
        (headers(), BODY, NOW + 301, "off"),
        (headers(), BODY, NOW - 301, "off"),
        (headers() | {"Webhook-Timestamp": "²"}, BODY, NOW, "no number"),
        (without("Webhook-Id"), BODY, NOW, "webhook-id"),
        (without("Webhook-Signature"), BODY, NOW, "webhook-signature"),
        (headers(body=b"[]"), b"[]", NOW, "none of Upbeat's"),
        (headers(body=b"no"), b"no", NOW, "none of Upbeat's"),
    ],
)
def test_others_are_refused(given: dict[str, str], body: bytes, now: int, said: str) -> None:
    with pytest.raises(WebhookRefused, match=said):
        verify_webhook(body, given, SECRET, now=now)


def test_a_secret_that_is_none() -> None:
    with pytest.raises(ValueError, match="whsec_"):
        sign_webhook("whsec_%%%", ID, NOW, BODY)

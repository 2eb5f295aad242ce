"""Upkeep of webhooks, as a task. What it needs is imported where it runs, for beats read this file too."""

from app.settings import get_settings
from app.worker import app
from app.worker.bridge import task_sessions


@app.task(name="webhooks.rotate_keys", queue="system")
async def rotate_keys() -> dict[str, int]:
    """Encrypt the secrets of all webhooks with the newest of `UPBEAT_SECRET_KEYS`."""
    from app.modules.webhooks.service import Webhooks
    from app.outbound import OutboundPolicy
    from app.sealing import Sealer

    settings = get_settings()
    webhooks = Webhooks(
        task_sessions(),
        settings.webhook,
        sealer=Sealer(settings.secret.each()),
        outbound=OutboundPolicy.parse(settings.outbound.entries()),
    )
    return {"rotated": await webhooks.reseal()}

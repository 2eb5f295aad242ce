"""Agents whose endpoint is the tests' peer."""

from typing import Any

from pydantic import SecretStr

from app.modules.agents.config import AgentCreate
from app.sealing import new_key
from app.settings import OutboundSettings, SecretSettings, Settings

CREDENTIAL = "sk-not-for-other-eyes-0123456789"
CHAT_PATH = "/v1/chat/completions"
HEALTH_PATH = "/v1/models"


def with_agents(settings: Settings, *keys: str) -> Settings:
    """The settings, with keys for secrets (one is made if none is given) and loopback allowed."""
    return settings.model_copy(
        update={
            "secret": SecretSettings(keys=SecretStr(",".join(keys or (new_key(),)))),
            "outbound": OutboundSettings(allow="127.0.0.1"),
        }
    )


def chat(url: str, **changes: Any) -> AgentCreate:
    """A chat agent at a peer's address."""
    stated = {
        "name": "summariser",
        "kind": "chat",
        "url": f"{url}/v1",
        "model": "small",
        "system_prompt": "Be brief.",
        "prompt_template": "Summarise $topic.",
        "time_limit": 5,
    }
    return AgentCreate.model_validate(stated | changes)


def webhook(url: str, **changes: Any) -> AgentCreate:
    """A webhook at a peer's address."""
    return AgentCreate.model_validate({"name": "hook", "kind": "webhook", "url": f"{url}/hook"} | changes)

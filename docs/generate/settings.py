"""Every variable that is read from the environment."""

import inspect
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.settings import FailpointSettings, Settings
from docs.generate.markdown import joined, table

INTRODUCTION = """# Settings

Read from the environment, then from `.upbeat/env`, which `make up` leaves while it runs, then from files named for
variables in `/run/secrets` (containers) and systemd's folder of credentials. Durations are seconds."""


def page() -> str:
    """A table for each group."""
    groups = [_type_of(field) for field in Settings.model_fields.values()]
    parts = [part for group in groups if group is not FailpointSettings for part in _group(group)]
    return joined([INTRODUCTION, *parts])


def variables() -> set[str]:
    """The names of all variables."""
    groups = [_type_of(field) for field in Settings.model_fields.values()]
    return {
        name
        for group in groups
        for key, field in group.model_fields.items()
        for name in _names(group, key, field)
    }


def _type_of(field: FieldInfo) -> type[BaseModel]:
    found: Any = field.annotation
    return found  # type: ignore[no-any-return]


def _group(group: type[BaseModel]) -> Iterator[str]:
    rows = [
        [
            ", ".join(f"`{name}`" for name in _names(group, key, field)),
            _default(field),
            _kind(field),
            field.description or "",
        ]
        for key, field in group.model_fields.items()
    ]
    yield f"## {group.__name__.removesuffix('Settings')}"
    yield (inspect.getdoc(group) or "").replace("``", "`")
    yield table(["variable", "default", "kind", ""], rows)


def _names(group: type[BaseModel], key: str, field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    if isinstance(alias, str):
        return [alias]
    return [f"{group.model_config.get('env_prefix', '')}{key}".upper()]


def _default(field: FieldInfo) -> str:
    if field.default in (None, PydanticUndefined, "", ()):
        return ""
    text = str(field.default).removesuffix(".0")
    return f"`{text.lower() if isinstance(field.default, bool) else text}`"


def _kind(field: FieldInfo) -> str:
    kinds = [each for each in get_args(field.annotation) or (field.annotation,) if each is not type(None)]
    return ", ".join(
        "secret" if each is SecretStr else getattr(each, "__name__", f"`{each}`") for each in kinds
    )

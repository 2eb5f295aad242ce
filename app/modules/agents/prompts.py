"""Prompt templates: `$name` or `${name}`, `$$` for a dollar sign. Nothing in them is executed.

A template can name values and nothing else: no attributes, no expressions, no loops, so neither
the template nor a value can reach into the service or blow up.
"""

import json
import re
from collections.abc import Mapping
from string import Template
from typing import Any, Final

from app.errors import FieldError, InvalidInput

MAX_PROMPT: Final = 100_000


class PromptTemplate(Template):
    """`string.Template` whose names are ASCII identifiers, upper and lower case."""

    idpattern = r"(?a:[_a-zA-Z][_a-zA-Z0-9]*)"
    flags = re.VERBOSE


def names(template: str) -> list[str]:
    """The variables of a template, in the order of their first use."""
    return PromptTemplate(template).get_identifiers()


def check(template: str, field: str) -> None:
    """Refuse a template that could not be rendered.

    Raises:
        InvalidInput: a dollar sign stands alone.
    """
    if not PromptTemplate(template).is_valid():
        raise InvalidInput(
            FieldError(field, "A dollar sign must begin a variable ($name or ${name}), or be written as $$.")
        )


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The prompt. Texts stand as they are, other values as JSON, dates and their kin as texts.

    Raises:
        InvalidInput: variables are missing (all are named), or the prompt is too long.
    """
    check(template, "prompt")
    wanted = names(template)
    missing = [name for name in wanted if name not in variables]
    if missing:
        raise InvalidInput(
            [FieldError(f"variables.{name}", "The prompt needs this variable.") for name in missing]
        )
    prompt = PromptTemplate(template).substitute({name: _text(variables[name]) for name in wanted})
    if len(prompt) > MAX_PROMPT:
        raise InvalidInput(
            FieldError("variables", f"The prompt would be longer than {MAX_PROMPT} characters.")
        )
    return prompt


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

"""What schemathesis is told of this service: who calls, what a caller must not do to itself, and the ledger.

Loaded by schemathesis in a process of its own. Everything it needs is in the environment; `caller.Caller` is who calls.
The ledger has one JSON line for each answer to a change, in the order of the answers.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import schemathesis
from schemathesis import AuthContext, Case, HookContext, Response

from fuzz.caller import ENDS_SESSIONS, Caller

_caller = Caller.from_environment()
_ledger = Path(os.environ["UPBEAT_TEST_FUZZ_LEDGER"])


@schemathesis.auth(refresh_interval=None)
class Bearer:
    """The caller's token; what ends sessions is called with one that nobody else needs."""

    def get(self, case: Case[Any], context: AuthContext) -> str:
        return _caller.token_for(str(case.operation.definition.raw["operationId"]))

    def set(self, case: Case[Any], data: str, context: AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Nobody changes or removes those who call: everything after would only show that they are gone."""
    for name in ("user_id", "key_id"):
        if case.path_parameters and case.path_parameters.get(name) in _caller.protected:
            case.path_parameters[name] = _caller.stranger


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Note what was answered to a change."""
    if response.request.method == "GET":
        return
    name = case.operation.definition.raw["operationId"]
    if response.status_code == 401 and name not in ENDS_SESSIONS:
        _caller.forget_token()
    if 200 <= response.status_code < 300:
        location = response.headers.get("location", [None])[0]
        line = {
            "operation": name,
            "method": response.request.method,
            "path": urlsplit(str(response.request.url)).path,
            "status": response.status_code,
            "location": location,
            "body": response.json() if response.content else None,
        }
        with _ledger.open("a") as file:
            file.write(json.dumps(line) + "\n")

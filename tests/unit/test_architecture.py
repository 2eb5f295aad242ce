"""The house's rules, read from the imports: who may import whom, and how long a file may be."""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.db import locks

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app"
LONGEST_FILE = 600
# What `make sdk` writes; nobody reads it from end to end, and nobody edits it.
GENERATED = ROOT / "sdk" / "src" / "upbeat_sdk" / "_generated"

# Each layer imports itself and the layers before it. `api` and `cli` stand side by side. A module's
# routes are HTTP, so they stand with `api`; `main` alone imports them.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("settings", "errors", "failpoints", "logs"),
    ("db", "outbound", "sealing"),
    ("scheduling",),
    ("worker",),
    ("modules",),
    ("api", "cli"),
    ("main",),
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}

PURE = frozenset({"timing", "policies", "crontab", "keys", "walltime", "plan", "preview", "simulation"})
ENGINE_MAKERS = frozenset(
    {"create_engine", "create_async_engine", "async_engine_from_config", "engine_from_config"}
)
STANDARD_LIBRARY = sys.stdlib_module_names


@dataclass(frozen=True, slots=True)
class Import:
    """``module`` is the dotted name that is imported, ``name`` what is taken from it, if anything."""

    module: str
    name: str | None
    line: int

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def target(self) -> tuple[str, ...]:
        """All parts, with the name: `from app.db import engines` is app.db.engines."""
        return (*self.module.split("."), *((self.name,) if self.name else ()))


def imports(source: str) -> Iterator[Import]:
    """All imports, at whatever depth, but those of a script's own block: no module depends on it."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not _is_script_block(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides the layer"
            for alias in node.names:
                yield Import(node.module or "", alias.name, node.lineno)


def _is_script_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def violations(sources: Mapping[str, str]) -> list[str]:
    """What breaks a rule in ``sources``, which maps a path such as app/db/base.py to its text."""
    found = []
    for path, source in sources.items():
        parts = Path(path).with_suffix("").parts
        for each in imports(source):
            found += [f"{path}:{each.line}: {broken}" for broken in _broken(parts, each)]
    return found


def _broken(parts: tuple[str, ...], each: Import) -> Iterator[str]:
    if parts[0] == "sdk":
        if each.top == "app":
            yield "the SDK does not import the server"
    elif parts[1] != "__init__":
        yield from _broken_layer(parts, each.target)
        yield from _broken_reserve(parts, each)
        if parts[1] == "scheduling" and parts[-1] in PURE:
            pure = {("app", "scheduling", name) for name in PURE}
            if each.top not in STANDARD_LIBRARY | {"cronsim"} and each.target[:3] not in pure:
                yield f"{parts[-1]} is pure: standard library, cronsim and its kin"


def _broken_layer(parts: tuple[str, ...], target: tuple[str, ...]) -> Iterator[str]:
    if target[0] != "app" or len(target) == 1:
        return
    layer, other = parts[1], target[1]
    if target[1:2] == ("modules",) and target[3:4] == ("routes",) and layer != "main":
        yield "only main imports a module's routes"
    if other not in HEIGHT:
        yield f"app.{other} is in no layer"
    elif _is_routes(parts) and other == "api":
        return
    elif HEIGHT[other] > HEIGHT[layer]:
        yield f"{layer} does not import {other}"
    elif HEIGHT[other] == HEIGHT[layer] and other != layer and layer not in LAYERS[0]:
        yield f"{layer} and {other} do not import each other"
    another_module = layer == other == "modules" and target[2:3] != parts[2:3]
    if another_module and target[3:4] != ("service",):
        yield f"the module {target[2]} is used through its service only"


def _broken_reserve(parts: tuple[str, ...], each: Import) -> Iterator[str]:
    layer = parts[1]
    if each.name in ENGINE_MAKERS and layer != "db":
        yield "only db makes engines"
    if each.top in ("celery", "kombu") and layer != "worker":
        yield "only worker imports celery and kombu"
    if each.top == "fastapi" and not (layer in ("api", "main") or _is_routes(parts)):
        yield "only api, main and a module's routes import fastapi"


def _is_routes(parts: tuple[str, ...]) -> bool:
    return parts[1] == "modules" and parts[3:] == ("routes",)


def sources() -> dict[str, str]:
    written = [*APP.rglob("*.py"), *(ROOT / "sdk").rglob("*.py")]
    files = [file for file in written if "tests" not in file.relative_to(ROOT).parts]
    return {str(file.relative_to(ROOT)): file.read_text() for file in files}


def test_imports_keep_to_the_layers() -> None:
    assert violations(sources()) == []


def test_each_part_of_the_house_is_in_a_layer() -> None:
    parts = {p.stem for p in APP.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__"} <= set(HEIGHT)


def test_no_file_is_too_long() -> None:
    folders = ("app", "migrations", "sdk", "tests", "bench", "examples")
    written = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    files = [file for file in written if file.parent != GENERATED]
    long = {str(f.relative_to(ROOT)): n for f in files if (n := f.read_text().count("\n")) > LONGEST_FILE}
    assert long == {}


@pytest.mark.parametrize(
    ("path", "source", "violation"),
    [
        ("app/db/base.py", "from app.scheduling import models", "db does not import scheduling"),
        ("app/db/base.py", "import app.worker.app", "db does not import worker"),
        ("app/settings.py", "from app.db.base import Base", "settings does not import db"),
        ("app/scheduling/runs.py", "from app import main", "scheduling does not import main"),
        ("app/api/runs.py", "from app.cli.up import up", "api and cli do not import each other"),
        ("app/cli/up.py", "import app.api", "cli and api do not import each other"),
        ("app/api/runs.py", "import app.unheard", "app.unheard is in no layer"),
        (
            "app/modules/agents/tasks.py",
            "from app.modules.auth.models import User",
            "the module auth is used through its service only",
        ),
        (
            "app/modules/agents/tasks.py",
            "from app.modules.auth import models",
            "the module auth is used through its service only",
        ),
        (
            "app/scheduling/timing.py",
            "import sqlalchemy",
            "timing is pure: standard library, cronsim and its kin",
        ),
        (
            "app/scheduling/policies.py",
            "from app.scheduling.models import Run",
            "policies is pure: standard library, cronsim and its kin",
        ),
        ("app/worker/results.py", "from sqlalchemy import create_engine", "only db makes engines"),
        (
            "app/modules/auth/tasks.py",
            "from celery import shared_task",
            "only worker imports celery and kombu",
        ),
        ("app/scheduling/dispatch.py", "import kombu.utils", "only worker imports celery and kombu"),
        (
            "app/modules/auth/service.py",
            "def f():\n    from fastapi import Depends",
            "only api, main and a module's routes import fastapi",
        ),
        ("app/modules/auth/service.py", "from app.api import pagination", "modules does not import api"),
        ("app/modules/auth/routes.py", "from app.cli.up import up", "modules does not import cli"),
        ("app/api/runs.py", "from app.modules.agents import routes", "only main imports a module's routes"),
        ("app/outbound.py", "from app.db.base import Base", "outbound and db do not import each other"),
        ("sdk/upbeat_sdk/client.py", "from app.errors import NotFound", "the SDK does not import the server"),
    ],
)
def test_a_planted_violation_is_found(path: str, source: str, violation: str) -> None:
    line = source.count("\n") + 1
    assert violations({path: source}) == [f"{path}:{line}: {violation}"]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("app/errors.py", "from app import settings"),
        ("app/scheduling/timing.py", "from cronsim import CronSim\nfrom app.scheduling.walltime import f"),
        ("app/modules/auth/routes.py", "from fastapi import APIRouter\nfrom app.modules.auth import service"),
        ("app/modules/agents/routes.py", "from app.api.pagination import encode"),
        ("app/main.py", "from app.modules.agents import routes"),
        ("app/modules/agents/tasks.py", "from app.worker import app\nfrom app.modules.auth.service import f"),
        ("app/main.py", "from app.api import x\nfrom app.cli import y"),
        ("app/db/engines.py", "from sqlalchemy import create_engine"),
        ("app/api/openapi.py", "if __name__ == '__main__':\n    from app.main import create_app"),
    ],
)
def test_what_is_allowed_is_not_found(path: str, source: str) -> None:
    assert violations({path: source}) == []


def test_no_two_advisory_locks_are_the_same() -> None:
    keys = {name: key for name, key in vars(locks).items() if name.isupper()}
    assert len(set(keys.values())) == len(keys) > 1
    elsewhere = [
        file.name
        for file in (*APP.rglob("*.py"), *(ROOT / "migrations").rglob("*.py"))
        if "ADVISORY_LOCK" in file.read_text() or "0x757062656174" in file.read_text().replace("_", "")
    ]
    assert elsewhere == ["locks.py"]

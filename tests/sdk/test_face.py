"""The package's face is its API; everything else in it is private, and it stands on httpx and pydantic alone."""

import ast
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import upbeat_sdk
from upbeat_sdk import _errors, testing

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "sdk" / "src" / "upbeat_sdk"
ALLOWED = sys.stdlib_module_names | {"httpx", "pydantic", "pydantic_core", "upbeat_sdk"}


def test_what_is_exported_is_named() -> None:
    for package in (upbeat_sdk, testing):
        public = {name for name in vars(package) if not name.startswith("_")} - {"testing"}
        assert public | ({"__version__"} & set(package.__all__)) == set(package.__all__)
        assert list(package.__all__) == sorted(package.__all__)


def test_all_modules_are_private_but_the_one_for_tests() -> None:
    modules = {module.name for module in pkgutil.iter_modules(upbeat_sdk.__path__)}
    assert {name for name in modules if not name.startswith("_")} == {"testing"}
    inside = {module.name for module in pkgutil.iter_modules(testing.__path__)}
    assert all(name.startswith("_") for name in inside)


def test_every_error_is_exported_and_drawn() -> None:
    errors = {
        name
        for name, value in vars(_errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert errors <= set(upbeat_sdk.__all__)
    drawn = _errors.__doc__ or ""
    assert [name for name in errors if name not in drawn] == []
    assert all(issubclass(getattr(upbeat_sdk, name), upbeat_sdk.UpbeatError) for name in errors)


def test_nothing_but_httpx_and_pydantic_is_needed() -> None:
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= ALLOWED, file
    project = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]
    assert [each.split(">")[0] for each in project["dependencies"]] == ["httpx", "pydantic"]


def test_it_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()


def test_importing_it_does_not_import_the_part_for_tests() -> None:
    code = "import sys, upbeat_sdk; print([m for m in sys.modules if m.startswith('upbeat_sdk.testing')])"
    environment = {"PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

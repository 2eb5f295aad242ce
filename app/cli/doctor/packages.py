"""Python, the virtual environment, and the installed packages beside the lock."""

import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from app.cli.doctor.findings import Finding, fail, ok, warn

ROOT = Path(__file__).resolve().parents[3]
LOCK = ROOT / "requirements" / "server.txt"
OLDEST_PYTHON = (3, 11)
SHOWN = 5
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*\\?$", re.MULTILINE)


def python() -> Finding:
    """The interpreter, and whether it is one of a virtual environment."""
    version = sys.version.split()[0]
    if sys.version_info < OLDEST_PYTHON:
        return fail(
            "python", f"Python {version}", "Install Python 3.11 or newer, and make the environment anew."
        )
    if sys.prefix == sys.base_prefix:
        return warn(
            "python",
            f"Python {version} without a virtual environment ({sys.prefix})",
            "Start with .venv/bin/python, or activate it: . .venv/bin/activate",
        )
    return ok("python", f"Python {version}, virtual environment {sys.prefix}")


def packages(lock: Path = LOCK) -> Finding:
    """The installed packages beside those of the lock; a wheel brings none."""
    if not lock.exists():
        return ok(
            "packages", f"upbeat {_installed('upbeat') or 'unreleased'}; no lock beside it to compare with"
        )
    pinned = pins(lock.read_text())
    return compare(pinned, {name: _installed(name) for name in pinned}, lock.name)


def pins(text: str) -> dict[str, str]:
    """Names and versions of a requirements file; those with a marker are left out."""
    return dict(_PINNED.findall(text))


def compare(pinned: Mapping[str, str], installed: Mapping[str, str | None], lock: str) -> Finding:
    """``installed`` has None for what is missing."""
    missing = [name for name in pinned if installed.get(name) is None]
    others = [
        f"{name} {installed[name]} (locked {version})"
        for name, version in pinned.items()
        if installed.get(name) not in (None, version)
    ]
    remedy = f"Install the lock: python -m pip install --require-hashes -r requirements/{lock}"
    if missing:
        return fail("packages", f"missing: {_listed(missing)}", remedy)
    if others:
        return warn("packages", f"not as locked: {_listed(others)}", remedy)
    return ok("packages", f"{len(pinned)} packages, all as locked in {lock}")


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

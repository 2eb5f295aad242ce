"""The peers' own environment: `.venv-bench`, from the pinned and hashed `requirements/bench.txt`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "bench.txt"
FOLDER = ROOT / ".venv-bench"
MARK = FOLDER / ".installed"


def install() -> None:
    """Make the environment when it is missing or older than its lock."""
    if MARK.exists() and MARK.stat().st_mtime >= LOCK.stat().st_mtime:
        return
    print(f"Installing the peers of {LOCK.name} into {FOLDER.name} …", file=sys.stderr)
    if not (FOLDER / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    pip = [
        str(FOLDER / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
    ]
    subprocess.run([*pip, "--quiet", "--require-hashes", "-r", str(LOCK)], check=True)
    MARK.touch()


def versions() -> dict[str, str]:
    """The pinned version of each distribution."""
    lines = LOCK.read_text().splitlines()
    pins = (line.rstrip(" \\").partition("==") for line in lines if "==" in line and not line.startswith(" "))
    return {name: version for name, _, version in pins}

"""The example business module, copied and renamed as its README says, passes its own tests in a checkout of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

README = (ROOT / "examples" / "readings" / "README.md").read_text()
COPIED = ("app", "migrations", "examples", "tests", "sdk", "conftest.py", "pyproject.toml", "alembic.ini")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    made = tmp_path / "a checkout"
    made.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, made / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, made / name)
    return made


def test_copying_the_folder_makes_a_module(checkout: Path) -> None:
    copying = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)[0]
    subprocess.run(["sh", "-e", "-c", copying], cwd=checkout, check=True)
    module = checkout / "app" / "modules" / "parcels"
    assert not [file for file in module.rglob("*.py") if "reading" in file.read_text().lower()]
    # Nor what makes coverage measure: these files are gone when it reports.
    ours = ("PYTEST_", "PYTHON", "UPBEAT_", "COVERAGE_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tested = ("app/modules/parcels", "tests/unit/test_architecture.py")
    done = subprocess.run(
        [*command, *tested], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    number = re.search(r"(\d+) passed", done.stdout)
    assert number
    assert int(number[1]) > 40

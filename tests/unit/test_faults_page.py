"""`docs/faults.md` names tests that exist, every test of a fault, and every kind of the mix."""

import ast
import re
from pathlib import Path

from support.soak import KINDS

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "faults.md").read_text()
NAMED = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE))


def _tests(folder: str) -> set[tuple[str, str]]:
    return {
        (file.name, node.name)
        for file in (TESTS / folder).glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_each_row_names_tests_that_exist() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "test_" in line]
    assert len(rows) >= 25
    assert NAMED - _tests("faults") - _tests("integration") - _tests("unit") == set()


def test_each_test_of_a_fault_has_its_row() -> None:
    assert _tests("faults") - NAMED == set()


def test_each_kind_of_the_mix_is_told() -> None:
    assert len(KINDS) >= 25
    assert [name for name in KINDS if name not in PAGE] == []

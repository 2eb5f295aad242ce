"""JSON bodies read strictly."""

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.bodies import LARGEST, MAX_DEPTH, SMALLEST, parse
from app.api.problems import MalformedBody
from app.api.validation import MAX_PATH
from app.errors import InvalidInput

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(SMALLEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda parts: st.lists(parts) | st.dictionaries(TEXT, parts),
)


@given(VALUES)
def test_what_can_be_stored_is_read_as_it_is(value: Any) -> None:
    for ascii_only in (True, False):
        assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(MalformedBody, InvalidInput):
        parse(body)


@pytest.mark.parametrize("number", [str(SMALLEST - 1), str(LARGEST + 1), "9" * 5000], ids=len)
def test_integers_beyond_64_bits(number: str) -> None:
    with pytest.raises(MalformedBody, match="64 bits"):
        parse(f"[{number}]".encode())


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(MalformedBody):
        parse(f'{{"a": {text}}}'.encode())


def test_depth() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 5_000, 500_000):
        with pytest.raises(MalformedBody, match="too deeply"):
            parse(b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"a": {"b": ["x", "\\u0000"]}}', "a.b.1"),
        (b'{"a": {"\\u0000": 1}}', "a"),
        (b'{"\\ud800": 1}', "body"),
        (b'"\\udfff"', "body"),
    ],
)
def test_text_that_postgresql_refuses_is_located(body: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(body)
    assert [error.field for error in caught.value.errors] == [field]


def test_a_long_key_is_not_written_before_each_of_its_values() -> None:
    body = json.dumps({"k" * 20_000: [0] * 2_000 + ["\0"]}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as caught:
            parse(body)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(body)
    finally:
        tracemalloc.stop()
    assert len(caught.value.errors[0].field) <= MAX_PATH


def test_a_surrogate_pair_is_a_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "😀"


def test_a_syntax_error_is_located_and_not_repeated() -> None:
    with pytest.raises(MalformedBody) as caught:
        parse(b'{\n  "password": hunter2}')
    assert "line 2, column 15" in caught.value.detail
    assert "hunter2" not in caught.value.detail

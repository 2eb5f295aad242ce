"""Documents for the database: what JSON says, with large numbers written out."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.db.documents import written

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_document_is_the_value_whatever_reads_it(value: Any) -> None:
    text = written(value)
    assert json.loads(text) == value
    assert repr(json.loads(text)) == repr(value)


def test_large_numbers_keep_their_fraction_and_texts_are_left_alone() -> None:
    value = {"1e+16": [1e16, -1e23, 1.5e300, 'say "1e+16" \\', "e+1"]}
    text = written(value)
    assert json.loads(text) == value
    assert "10000000000000000.0" in text
    assert "-99999999999999991611392.0" in text
    assert "e+" not in text.replace('"1e+16"', "").replace('\\"1e+16\\"', "").replace('"e+1"', "")

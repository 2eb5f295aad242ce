"""A start's token tells which process made it, and is nobody else's."""

import pytest

from app.scheduling.ids import process_of, start_token


@pytest.mark.parametrize("process", [1, 4_194_304, 2**32 - 1])
def test_a_token_tells_its_process(process: int) -> None:
    tokens = {start_token(process) for _ in range(1_000)}
    assert len(tokens) == 1_000
    assert {process_of(token) for token in tokens} == {process}
    assert {(token.version, token.variant) for token in tokens} == {(8, "specified in RFC 4122")}

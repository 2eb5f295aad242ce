"""What is kept of an exception, whatever it holds."""

from app.worker.errors import error_of


class Incomparable:
    """As the arrays of numpy are."""

    def __eq__(self, _: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "incomparable"


def test_an_error_may_hold_anything() -> None:
    assert error_of(KeyError(Incomparable()))["type"] == "KeyError"
    assert error_of(ValueError("broken")) == {"type": "ValueError", "message": "broken", "traceback": None}
    assert error_of(ValueError("broken", 3))["args"] == ["broken", 3]

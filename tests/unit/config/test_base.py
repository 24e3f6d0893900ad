"""Number formats of study files."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchscape.config.base import shortest_decimal

# Names.


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
@example(1e22)
@example(0.1 + 0.2)
def test_shortest_decimal_round_trips_and_cannot_be_shortened(value: float):
    text = shortest_decimal(value)
    assert float(text) == value
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01, "0.01"), (5e-05, "0.00005"), (1.0, "1"), (100.0, "100"), (0.1, "0.1"), (2.5e3, "2500"), (1, "1")],
)
def test_shortest_decimal_is_written_without_superfluous_digits(value: float, text: str):
    assert shortest_decimal(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_number_has_no_decimal_form(value: float):
    with pytest.raises(ValueError, match="no decimal form"):
        shortest_decimal(value)

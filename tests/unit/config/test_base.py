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
def test_a_shortest_decimal_parses_back_to_the_same_float_and_has_nothing_to_spare(value: float):
    text = shortest_decimal(value)
    assert float(text) == value
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01, "0.01"), (5e-05, "0.00005"), (1.0, "1"), (100.0, "100"), (0.1, "0.1"), (2.5e3, "2500"), (1, "1")],
)
def test_a_shortest_decimal_is_what_a_person_writes(value: float, text: str):
    assert shortest_decimal(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_without_a_decimal_form_has_no_name(value: float):
    with pytest.raises(ValueError, match="no decimal form"):
        shortest_decimal(value)

"""Ticks and labels that figures share."""

import pytest

from batchscape.report.figures import style


@pytest.mark.parametrize("limits", [(38, 63), (33, 60), (30, 60), (3, 4), (64, 64.5), (1.1, 1.9)])
def test_axis_with_fewer_than_two_powers_of_two_has_other_ticks(limits: tuple[float, float]):
    ticks = style.power_of_two_breaks(limits)
    assert len(ticks) >= 2
    assert limits[0] <= ticks[0] < ticks[-1] <= limits[1]


def test_axis_with_powers_of_two_has_no_other_ticks():
    assert style.power_of_two_breaks((30, 70)) == [32, 64]
    assert style.power_of_two_breaks((1, 2**20)) == [2**power for power in range(0, 21, 3)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1e-6, "1e-06"), (0.00002, "0.00002"), (0.03, "0.03"), (4096.0, "4096"), (0.1 + 0.2, "0.3"),
        (10**4.5, "31622.8"), (3e5, "300,000"), (-3e5, "-300,000"), (10**5.7, "501,187"), (1e6, "1e+06"),
        (1.95e8, "1.95e+08"), (1e12, "1e+12"),
    ],
)  # fmt: skip
def test_ticks_of_counts_have_commas_up_to_a_million(value: float, text: str):
    assert style.format_tick(value) == text


def test_ticks_that_are_not_exact_have_the_form_of_others():
    assert style.tick_labels([5e5 * (1 - 1e-15), 7e5 - 1e-9, 1e6 - 1e-6]) == ["500,000", "700,000", "1e+06"]

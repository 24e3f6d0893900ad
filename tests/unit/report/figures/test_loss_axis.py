"""The axis of losses that can be negative: the ticks between any two of them."""

import pytest

from batchscape.report.figures.loss_axis import MAX_BREAKS, signed_breaks


@pytest.mark.parametrize(
    "limits", [(-95, -20), (-268, -260), (-250, -120), (-1000, -101), (-50.01, -50), (20, 90), (-12, 5), (-0.3, 0.1)]
)
def test_axis_between_any_losses_has_at_least_two_ticks_inside(limits: tuple[float, float]):
    ticks = signed_breaks(limits)
    assert 2 <= len(ticks) <= MAX_BREAKS + 2
    assert ticks == sorted(ticks)
    assert limits[0] <= ticks[0] < ticks[-1] <= limits[1]


def test_long_axis_has_zero_and_powers_of_ten():
    assert signed_breaks((-5000, 50)) == [-1000, -100, -10, 0, 10]

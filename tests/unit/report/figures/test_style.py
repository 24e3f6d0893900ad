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

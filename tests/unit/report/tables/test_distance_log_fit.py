"""Fits of the distance over time against exact curves and a manual regression, and the table `noise_scale`."""

import numpy as np
import pandas as pd
import pytest

from batchscape.report.tables import distance_log_fit, distance_over_time, noise_scale

STEPS = 23.0 * np.arange(1, 400)


def test_exact_logarithm_is_recovered():
    found = distance_log_fit.fit(STEPS, 5 + 0.7 * np.log(STEPS))
    assert found["log_intercept"] == pytest.approx(5)
    assert found["log_slope"] == pytest.approx(0.7)
    assert found["log_r2"] == pytest.approx(1, abs=1e-12)
    assert found["power_r2"] < 1
    assert found["r2_difference"] == found["log_r2"] - found["power_r2"] > 0


def test_exact_power_law_is_recovered():
    found = distance_log_fit.fit(STEPS, 0.2 * STEPS**0.45)
    assert found["power_factor"] == pytest.approx(0.2, rel=1e-6)
    assert found["power_exponent"] == pytest.approx(0.45, rel=1e-6)
    assert found["power_r2"] == pytest.approx(1, abs=1e-12)
    assert found["r2_difference"] < 0


def test_fits_are_weighted_least_squares_of_the_distance():
    rng = np.random.default_rng(1)
    distances = 2 + 0.3 * np.log(STEPS) + rng.normal(0, 0.1, len(STEPS))
    found = distance_log_fit.fit(STEPS, distances)
    slope, intercept = np.polyfit(np.log(STEPS), distances, 1, w=STEPS**-0.5)
    assert (found["log_slope"], found["log_intercept"]) == pytest.approx((slope, intercept), rel=1e-9)
    weights = 1 / STEPS
    spread = weights @ (distances - np.average(distances, weights=weights)) ** 2
    left = weights @ (distances - intercept - slope * np.log(STEPS)) ** 2
    assert found["log_r2"] == pytest.approx(1 - left / spread, rel=1e-9)

    def cost(factor: float, exponent: float) -> float:
        return weights @ (distances - factor * STEPS**exponent) ** 2

    factor, exponent = found["power_factor"], found["power_exponent"]
    least = cost(factor, exponent)
    assert found["power_r2"] == pytest.approx(1 - least / spread, rel=1e-9)
    for change in (0.999, 1.001):
        assert cost(factor * change, exponent) > least
        assert cost(factor, exponent * change) > least


@pytest.mark.parametrize("distances", [[1.0, 2.0], [1.0, np.nan, 3.0], [0.0, 1.0, 2.0], [1.0, 2.0, np.inf]])
def test_fit_is_nan_if_undefined(distances: list[float]):
    found = distance_log_fit.fit(np.arange(1.0, len(distances) + 1), np.array(distances))
    assert list(found) == distance_log_fit.VALUES
    assert np.isnan(list(found.values())).all()


def history() -> pd.DataFrame:
    rows = []
    for seed, slope, status, epochs in ((0, 1.0, "converged", 9), (1, 3.0, "budget_spent", 8), (2, 9.0, "diverged", 4)):
        for epoch in range(1, epochs + 1):
            what = {"batch_size": 32, "learning_rate": 0.1, "setting": "bs32-lr0.1", "seed": seed, "status": status}
            what["run"] = f"bs32-lr0.1-seed{seed}"
            values = {"distance": 4 + slope * np.log(7 * epoch), "noise_scale": np.nan, "gradient_norm": np.nan}
            if epoch in (1, 2, 4, 8):
                values |= {"noise_scale": 10.0 * epoch * slope, "gradient_norm": slope}
            rows.append({**what, "epoch": epoch, "step": 7 * epoch, **values})
    return pd.DataFrame(rows)


def test_fits_are_summarized_over_the_runs_that_did_not_diverge():
    row = distance_log_fit.tabulate(history()).iloc[0]
    assert (row["log_slope_mean"], row["log_slope_min"], row["log_slope_max"]) == pytest.approx((2, 1, 3))
    assert row["log_intercept_mean"] == pytest.approx(4)
    assert (row["n_seeds"], row["n_diverged"]) == (2, 1)


def test_distance_is_by_epoch_and_step():
    table = distance_over_time.tabulate(history())
    assert table["step"].tolist() == [7 * epoch for epoch in range(1, 10)]
    assert table["distance_mean"].to_numpy()[:8] == pytest.approx(4 + 2 * np.log(table["step"].to_numpy()[:8]))
    assert table["n_seeds"].tolist() == [2] * 8 + [1]


def test_noise_scale_has_a_row_for_each_measured_epoch():
    table = noise_scale.tabulate(history())
    assert table["epoch"].tolist() == [1, 2, 4, 8]
    assert table["noise_scale_mean"].tolist() == [20, 40, 80, 160]
    assert table["gradient_norm_mean"].tolist() == [2, 2, 2, 2]
    assert table["n_diverged"].tolist() == [1, 1, 1, 0]

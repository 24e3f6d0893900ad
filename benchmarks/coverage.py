"""How often the intervals and tests of the report are right, in studies that are made up and whose truth is known.

    python benchmarks/coverage.py

Each study has 3, 5 or 10 seeds and five batch sizes, and is evaluated by the functions of the report:

- exponent: the loss is a bowl, a parabola of log(rate) in log(loss), whose best rate grows with the square root of the
  batch size. Seeds shift all log losses of their runs (standard deviation 0.2), and each run has its own noise (0.05 or
  0.2). Where the grid of eight rates, a factor of 2 apart, lies relative to the best rates is random.
- tolerance: the same losses of one batch size, and the range of rates within 5 % of the best one. The true range is
  that which the interpolation gives without noise of runs.
- critical batch: S = S_min·(1 + B_crit/B) steps with B_crit inside the range of batch sizes, noise shared by the runs
  of a seed (0.1) and noise of each run (0.05 or 0.15). The 20 % critical batch is that of the same steps.
- claim: log ratios over seeds with mean log 1.3 and standard deviation 0.2, and the t interval of the ratio.
- equivalence: log ratios over seeds with the mean at the margin of 5 % and a standard deviation of 0.02. Reported is
  how often the test calls the ratio within the margin.
- Holm: 21 claims without any effect, correlated by 0.5 as claims about the same runs are. Reported is how often
  Holm's adjustment calls at least one of them true.

Coverage should be 95 %, and errors at most 5 %; with 2,000 studies each number has a standard error of 0.5 %.

    % of studies                           3 seeds       5 seeds      10 seeds
    exponent, noise 0.05                      95.3          94.7          94.0
    exponent, noise 0.2                       95.6          96.3          94.8
    tolerance, noise 0.01                     94.5          94.1          94.4
    tolerance, noise 0.05                     92.2          90.1          92.1
    critical batch, noise 0.05                95.4          94.0          95.2
    critical batch, noise 0.15                95.6          94.0          95.2
    20 % critical batch, noise 0.05           91.9          92.2          89.8
    20 % critical batch, noise 0.15           88.4          88.2          86.9
    claim                                     94.8          95.9          95.0
    equivalence, errors                        5.5           4.1           4.9
    Holm, errors                               4.4           4.5           4.0

The 20 % critical batch is where a line through few points first crosses a limit, and the range of good rates starts at
the lowest of noisy losses: where noise is as large as what is measured, both are biased, and their intervals are too
narrow.

`--quick` makes few studies: it only checks that the benchmark runs.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from batchscape.config.base import shortest_decimal
from batchscape.report.claims.t_test import equivalence_p_value, t_test
from batchscape.report.optimum import find_tolerated_range
from batchscape.report.tables import critical_batch, scaling, tolerance

BATCH_SIZES = np.array([16, 32, 64, 128, 256])
RATES = 0.0025 * 2.0 ** np.arange(8)
EXPONENT, CURVATURE, SEED_SD = 0.5, 0.3, 0.2
CRITICAL_BATCH, MIN_STEPS = 60.0, 100.0
RATIO = 1.3
CLAIMS, MARGIN = 21, 0.05
SEEDS = (3, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that the benchmark runs")
    studies = 20 if parser.parse_args().quick else 2000
    cases = {
        "exponent, noise 0.05": lambda *study: covers_exponent(*study, noise=0.05),
        "exponent, noise 0.2": lambda *study: covers_exponent(*study, noise=0.2),
        "tolerance, noise 0.01": lambda *study: covers_tolerance(*study, noise=0.01),
        "tolerance, noise 0.05": lambda *study: covers_tolerance(*study, noise=0.05),
        "critical batch, noise 0.05": lambda *study: covers_critical_batch(*study, noise=0.05),
        "critical batch, noise 0.15": lambda *study: covers_critical_batch(*study, noise=0.15),
        "20 % critical batch, noise 0.05": lambda *study: covers_overhead_batch(*study, noise=0.05),
        "20 % critical batch, noise 0.15": lambda *study: covers_overhead_batch(*study, noise=0.15),
        "claim": covers_ratio,
        "equivalence, errors": calls_edge_of_margin_equal,
        "Holm, errors": calls_one_of_many_true,
    }
    print(f"{'% of studies':32s}" + "".join(f"{count:8d} seeds" for count in SEEDS))
    for name, judge in cases.items():
        shares = [np.mean(list(judge(count, studies, np.random.default_rng(count)))) for count in SEEDS]
        print(f"{name:32s}" + "".join(f"{100 * share:14.1f}" for share in shares), flush=True)


def covers_exponent(n_seeds: int, studies: int, rng: np.random.Generator, noise: float) -> Iterator[bool]:
    """Yield for each study whether the interval of the exponent contains the true one."""
    losses = scaling.losses_of_grid(made_up_runs(n_seeds))
    growth = EXPONENT * np.log(losses.batch_sizes / BATCH_SIZES[0])
    for _ in range(studies):
        best = np.log(RATES[2]) + growth + rng.uniform(-0.5, 0.5) * np.log(2)
        logs = CURVATURE * (losses.positions - best) ** 2 + SEED_SD * rng.normal(size=(n_seeds, 1))
        made = losses._replace(values=np.exp(logs + noise * rng.normal(size=(n_seeds, len(best)))))
        exponent = scaling.estimate_exponents(made, scaling.sizes_with_optimum(made))[0]
        yield exponent.ci95_low <= EXPONENT <= exponent.ci95_high


def made_up_runs(n_seeds: int) -> pd.DataFrame:
    """Return a table `runs` of all batch sizes and rates, with equal losses."""
    rows = [
        {"batch_size": size, "learning_rate": rate, "setting": f"bs{size}-lr{shortest_decimal(rate)}", "seed": seed}
        for size in BATCH_SIZES
        for rate in RATES
        for seed in range(n_seeds)
    ]
    return pd.DataFrame(rows).assign(status="converged", best_validation_loss=1.0)


def covers_tolerance(n_seeds: int, studies: int, rng: np.random.Generator, noise: float) -> Iterator[bool]:
    """Yield for each study whether the interval of the width of the range of good rates contains the true one."""
    positions = np.log(RATES)
    for _ in range(studies):
        best = positions[3] + rng.uniform(-0.5, 0.5) * np.log(2)
        bowl = CURVATURE * (positions - best) ** 2
        true = find_tolerated_range(positions, np.exp(bowl), MARGIN)
        logs = bowl + SEED_SD * rng.normal(size=(n_seeds, 1)) + noise * rng.normal(size=(n_seeds, len(bowl)))
        found = tolerance.estimate_width(positions, np.exp(logs), MARGIN)
        yield found.ci95_low <= np.exp(true.high - true.low) <= found.ci95_high


def covers_critical_batch(n_seeds: int, studies: int, rng: np.random.Generator, noise: float) -> Iterator[bool]:
    """Yield for each study whether the interval of the critical batch size contains the true one."""
    for steps in made_up_steps(n_seeds, studies, rng, noise):
        found = critical_batch.estimate(BATCH_SIZES, steps)["critical_batch"]
        yield found.ci95_low <= CRITICAL_BATCH <= found.ci95_high


def covers_overhead_batch(n_seeds: int, studies: int, rng: np.random.Generator, noise: float) -> Iterator[bool]:
    """Yield for each study whether the interval of the 20 % critical batch size contains the true one.

    Without noise, B·S(B) = 1.2·B₀·S(B₀) for the smallest batch size B₀ gives B = 1.2·B₀ + 0.2·B_crit.
    """
    true = critical_batch.OVERHEAD * BATCH_SIZES[0] + (critical_batch.OVERHEAD - 1) * CRITICAL_BATCH
    for steps in made_up_steps(n_seeds, studies, rng, noise):
        found = critical_batch.estimate(BATCH_SIZES, steps)["critical_batch_20pct"]
        yield found.ci95_low <= true <= found.ci95_high


def made_up_steps(n_seeds: int, studies: int, rng: np.random.Generator, noise: float) -> Iterator[np.ndarray]:
    """Yield the steps of each study, shape (seeds, batch sizes)."""
    for _ in range(studies):
        factors = 0.1 * rng.normal(size=(n_seeds, 1)) + noise * rng.normal(size=(n_seeds, len(BATCH_SIZES)))
        yield MIN_STEPS * (1 + CRITICAL_BATCH / BATCH_SIZES) * np.exp(factors)


def covers_ratio(n_seeds: int, studies: int, rng: np.random.Generator) -> Iterator[bool]:
    """Yield for each study whether the interval of a claim contains the true ratio."""
    for _ in range(studies):
        test = t_test(np.log(RATIO) + 0.2 * rng.normal(size=n_seeds))
        yield test.ci95_low <= np.log(RATIO) <= test.ci95_high


def calls_edge_of_margin_equal(n_seeds: int, studies: int, rng: np.random.Generator) -> Iterator[bool]:
    """Yield for each study whether the test of equivalence calls a ratio at the margin within it."""
    limit = np.log1p(MARGIN)
    for _ in range(studies):
        yield equivalence_p_value(limit + 0.02 * rng.normal(size=n_seeds), limit) < 0.05


def calls_one_of_many_true(n_seeds: int, studies: int, rng: np.random.Generator) -> Iterator[bool]:
    """Yield for each study whether Holm's method rejects one of several true hypotheses at the level of 5 %."""
    for _ in range(studies):
        shared, own = rng.normal(size=(1, n_seeds)), rng.normal(size=(CLAIMS, n_seeds))
        p_values = [t_test(row).p_value for row in (shared + own) / np.sqrt(2)]
        # Above 0.01 no adjusted p-value can be below 0.05; the adjustment is slow.
        yield min(p_values) < 0.01 and bool(multipletests(p_values, method="holm")[0].any())


if __name__ == "__main__":
    main()

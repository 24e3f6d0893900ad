"""How often the intervals and tests of the report are right, in studies that are made up and whose truth is known.

    python benchmarks/coverage.py

Each study has 3, 5 or 10 seeds and five batch sizes, and is evaluated by the functions of the report:

- exponent: the loss is a bowl, a parabola of log(rate) in log(loss), whose best rate grows with the square root of the
  batch size. Seeds shift all log losses of their runs (standard deviation 0.2), and each run has its own noise (0.05 or
  0.2). Where the grid of eight rates, a factor of 2 apart, lies relative to the best rates is random.
- critical batch: S = S_min·(1 + B_crit/B) steps with B_crit inside the range of batch sizes, noise shared by the runs
  of a seed (0.1) and noise of each run (0.05 or 0.15).
- claim: log ratios over seeds with mean log 1.3 and standard deviation 0.2, and the t interval of the ratio.
- Holm: fourteen claims without any effect, correlated by 0.5 as claims about the same runs are. Reported is how often
  Holm's adjustment calls at least one of them true.

Coverage should be 95 %, and Holm's errors at most 5 %; with 2,000 studies each number has a standard error of 0.5 %.

    % of studies                       3 seeds       5 seeds      10 seeds
    exponent, noise 0.05                  95.3          94.7          94.0
    exponent, noise 0.2                   95.6          96.3          94.8
    critical batch, noise 0.05            95.4          94.0          95.2
    critical batch, noise 0.15            95.6          94.0          95.2
    claim                                 94.8          95.9          95.0
    Holm, errors                           5.1           4.7           4.0

`--quick` makes few studies: it only checks that the benchmark runs.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from batchscape.config.base import shortest_decimal
from batchscape.report.claims.t_test import t_test
from batchscape.report.tables import critical_batch, scaling

BATCH_SIZES = np.array([16, 32, 64, 128, 256])
RATES = 0.0025 * 2.0 ** np.arange(8)
EXPONENT, CURVATURE, SEED_SD = 0.5, 0.3, 0.2
CRITICAL_BATCH, MIN_STEPS = 60.0, 100.0
RATIO = 1.3
CLAIMS = 14
SEEDS = (3, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that the benchmark runs")
    studies = 20 if parser.parse_args().quick else 2000
    cases = {
        "exponent, noise 0.05": lambda *study: covers_exponent(*study, noise=0.05),
        "exponent, noise 0.2": lambda *study: covers_exponent(*study, noise=0.2),
        "critical batch, noise 0.05": lambda *study: covers_critical_batch(*study, noise=0.05),
        "critical batch, noise 0.15": lambda *study: covers_critical_batch(*study, noise=0.15),
        "claim": covers_ratio,
        "Holm, errors": calls_one_of_many_true,
    }
    print(f"{'% of studies':28s}" + "".join(f"{count:8d} seeds" for count in SEEDS))
    for name, judge in cases.items():
        shares = [np.mean(list(judge(count, studies, np.random.default_rng(count)))) for count in SEEDS]
        print(f"{name:28s}" + "".join(f"{100 * share:14.1f}" for share in shares), flush=True)


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


def covers_critical_batch(n_seeds: int, studies: int, rng: np.random.Generator, noise: float) -> Iterator[bool]:
    """Yield for each study whether the interval of the critical batch size contains the true one."""
    for _ in range(studies):
        factors = 0.1 * rng.normal(size=(n_seeds, 1)) + noise * rng.normal(size=(n_seeds, len(BATCH_SIZES)))
        steps = MIN_STEPS * (1 + CRITICAL_BATCH / BATCH_SIZES) * np.exp(factors)
        found = critical_batch.estimate(BATCH_SIZES, steps)["critical_batch"]
        yield found.ci95_low <= CRITICAL_BATCH <= found.ci95_high


def covers_ratio(n_seeds: int, studies: int, rng: np.random.Generator) -> Iterator[bool]:
    """Yield for each study whether the interval of a claim contains the true ratio."""
    for _ in range(studies):
        test = t_test(np.log(RATIO) + 0.2 * rng.normal(size=n_seeds))
        yield test.ci95_low <= np.log(RATIO) <= test.ci95_high


def calls_one_of_many_true(n_seeds: int, studies: int, rng: np.random.Generator) -> Iterator[bool]:
    """Yield for each study whether Holm's method rejects one of several true hypotheses at the level of 5 %."""
    for _ in range(studies):
        shared, own = rng.normal(size=(1, n_seeds)), rng.normal(size=(CLAIMS, n_seeds))
        p_values = [t_test(row).p_value for row in (shared + own) / np.sqrt(2)]
        # Above 0.01 no adjusted p-value can be below 0.05; the adjustment is slow.
        yield min(p_values) < 0.01 and bool(multipletests(p_values, method="holm")[0].any())


if __name__ == "__main__":
    main()

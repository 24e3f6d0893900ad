"""How often the rate that a search chooses fails with new seeds, and how good it is, on made-up losses.

    python benchmarks/search.py           # 400 searches for each margin; about ten minutes on one core
    python benchmarks/search.py --quick   # 12 searches

The loss is a valley over the logarithm of the learning rate, with noise of 10 %. Beyond a rate of its own, each seed
fails: it diverges, or its loss is that of an untrained network. These rates are log-normal around one that differs
between searches, with a standard deviation of 10, 20 or 30 %, and lie from half to twice the best rate of the valley.
Nothing trains, and no run is pruned. The numbers depend on no machine.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna

from batchscape.config.tuning import TuningConfig
from batchscape.tuning.rules import COMPLETED, DIVERGED, Outcome
from batchscape.tuning.trials import Cost, Report, Search, Studies

RANGE = (0.04, 2.0)
NOISE, CURVATURE, LOWEST, UNTRAINED = 0.1, 0.03, 0.05, 0.69
SPREADS, BEST_OVER_LIMIT, LOSSES_BEYOND = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0), (math.inf, UNTRAINED)
NEW_SEEDS = range(10_000, 10_400)
# Of the rates at which at most so many seeds fail, the best one is what a search could find.
SAFE = 0.02
EXAMPLES = 1000


@dataclass(frozen=True)
class Landscape:
    """The losses of one search."""

    case: int
    spread: float
    limit: float
    best: float
    loss_beyond: float

    @classmethod
    def draw(cls, case: int) -> "Landscape":
        """Return one of all kinds in turn."""
        limit = float(np.exp(np.random.default_rng([7, case]).uniform(math.log(0.15), math.log(1.5))))
        best = limit * BEST_OVER_LIMIT[case // 3 % 3]
        return cls(case, SPREADS[case % 3], limit, best, LOSSES_BEYOND[case // 9 % 2])

    def fails(self, rate: float, seed: int) -> bool:
        """Whether a seed fails at a rate."""
        return rate > self.limit * math.exp(self.spread * np.random.default_rng([self.case, seed]).normal())

    def failing_share(self, rate: float) -> float:
        """Return the share of new seeds that fail."""
        return float(np.mean([self.fails(rate, seed) for seed in NEW_SEEDS]))

    def loss(self, rate: float) -> float:
        """Return the loss of a seed that does not fail, without noise."""
        return LOWEST + CURVATURE * math.log(rate / self.best) ** 2

    def lowest_safe_loss(self) -> float:
        """Return the lowest loss of the rates at which hardly any seed fails."""
        return min(self.loss(rate) for rate in np.geomspace(0.02, 4, 60) if self.failing_share(rate) <= SAFE)

    def evaluate(
        self, hyperparameters: dict[str, float], seed: int, *, is_complete: bool, report: Report | None
    ) -> Outcome:
        """Stand in for a training, which reports nothing."""
        del report
        rate = hyperparameters["learning_rate"]
        if self.fails(rate, seed):
            status = DIVERGED if math.isinf(self.loss_beyond) else COMPLETED
            return Outcome(self.loss_beyond, status, UNTRAINED, 1.0, EXAMPLES)
        rng = np.random.default_rng([self.case, seed, is_complete, round(1e6 * (math.log(rate) + 50))])
        return Outcome(self.loss(rate) * math.exp(NOISE * rng.normal()), COMPLETED, UNTRAINED, 10.0, EXAMPLES)


def search(landscape: Landscape, margin: float, num_trials: float) -> float:
    """Return the rate that a search with the defaults finds."""
    tuning = TuningConfig(hyperparameters={"learning_rate": RANGE}, startup_trials=5, margin=margin)
    studies = Studies(optuna.storages.InMemoryStorage(), "trials", "finalists", {})
    cost = Cost(num_trials, len(tuning.seeds) * EXAMPLES, evaluations=10)
    trials, best = Search(tuning, {}, cost, landscape.evaluate, studies).run()
    return trials[best].rate


def measure(margin: float, num_searches: int, num_trials: float, write: Callable[[str], None] = print) -> float:
    """Write how the searches with a margin end, and return the share of new seeds that fail."""
    landscapes = [Landscape.draw(case) for case in range(num_searches)]
    rates = [search(landscape, margin, num_trials) for landscape in landscapes]
    shares = np.array([landscape.failing_share(rate) for landscape, rate in zip(landscapes, rates, strict=True)])
    losses = [
        landscape.loss(rate) / landscape.lowest_safe_loss() for landscape, rate in zip(landscapes, rates, strict=True)
    ]
    error = shares.std(ddof=1) / math.sqrt(num_searches)
    by_spread = ", ".join(
        f"{100 * shares[[landscape.spread == spread for landscape in landscapes]].mean():.1f} % (spread {spread:g})"
        for spread in SPREADS
    )
    write(
        f"margin {margin:g}, {num_trials:g} trials: {100 * shares.mean():.2f} ± {100 * error:.2f} % of new seeds fail: "
        f"{by_spread}; loss over that of the best safe rate: median {np.median(losses):.2f}, mean {np.mean(losses):.2f}"
    )
    return float(shares.mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 searches, to see that it works")
    parser.add_argument("--margins", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--searches", type=int, default=400)
    parser.add_argument("--trials", type=float, default=8)
    arguments = parser.parse_args()
    for margin in [1.5] if arguments.quick else arguments.margins:
        measure(margin, 12 if arguments.quick else arguments.searches, arguments.trials)

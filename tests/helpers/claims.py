"""Synthetic studies for tests of the claims: a run's quantities are a function of its setting and seed."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.config.study import Run
from batchscape.report.claims.statements import CLAIMS
from batchscape.report.tables import arm_runs
from batchscape.study.study import Study

SEEDS = [0, 1, 2]
SMALL, LARGE, LINEAR = Run(32, 0.01, 0), Run(128, 0.01, 0), Run(128, 0.04, 0)
OF_RUN = (*arm_runs.LOSSES, "validation_accuracy_at_best", *arm_runs.COSTS, "epoch_seconds")
RUN_QUANTITIES = (*OF_RUN, "distance", "update_norm", "sharpness", "train_loss", "epoch_distance")
CLAIM_NAMES = [claim.name for claim in CLAIMS]
# Those about a single run or all settings; the others compare batch sizes or learning rates.
DYNAMICS = (
    *("noise_scale_predicts", "critical_batch_grows", "edge_of_stability"),
    *("logarithmic_distance", "sharpness_follows_rate"),
)
COMPARISONS = [name for name in CLAIM_NAMES if name not in DYNAMICS]

QuantityFunction = Callable[[Run, str], float]
"""The value of a quantity of a run, by its name."""


def make_study(
    batch_sizes: tuple[int, ...] = (32, 64, 128), rates: tuple[float, ...] = (0.01, 0.04, 0.08), **more
) -> Study:
    """Return a study without a search; `more` are further sections of its file."""
    mapping = {
        "name": "synthetic",
        "grid": {"batch_sizes": list(batch_sizes), "learning_rates": list(rates), "seeds": SEEDS},
        "comparison": {"fixed_learning_rate": rates[0], "high_learning_rate": rates[-1]},
        "tuning": {"enabled": False},
    }
    return Study.from_mapping({**mapping, **more}, "synthetic")


def seed_noise(run: Run, quantity: str) -> float:
    """Return the level of a seed, which paired runs share, with 0.1 % of noise per run."""
    noise = np.random.default_rng([run.seed, run.batch_size, round(1e6 * run.learning_rate), len(quantity)]).normal()
    return (1 + run.seed) * (1 + 1e-3 * noise)


def scale_quantities(*changes: tuple[str, int, float, float]) -> QuantityFunction:
    """Return quantities without any effect, except for factors by quantity, batch size and learning rate."""

    def value_of(run: Run, quantity: str) -> float:
        factors = [f for name, size, rate, f in changes if (name, size, rate) == (quantity, *_setting(run))]
        return seed_noise(run, quantity) * float(np.prod(factors))

    return value_of


def _setting(run: Run) -> tuple[int, float]:
    return run.batch_size, run.learning_rate


def make_sources(
    value_of: QuantityFunction,
    chosen: Study | None = None,
    diverges: Callable[[Run], bool] = lambda _: False,
    epochs: int = 4,
):
    """Return the four sources of the table `claims` that each study has, in its order.

    Runs for which `diverges` is true diverged. The distance from the initial weights grows like the logarithm of the
    number of updates, with an error that alternates between evaluations.
    """
    chosen = chosen or make_study()
    rows = [
        {
            **{"run": name, "setting": run.setting, "batch_size": run.batch_size, "learning_rate": run.learning_rate},
            **{"seed": run.seed, "status": "diverged" if diverges(run) else "converged"},
            # The values of a diverged run must not be used.
            **{quantity: 1e6 if diverges(run) else value_of(run, quantity) for quantity in RUN_QUANTITIES},
        }
        for name, run in chosen.runs.items()
    ]
    values = pd.DataFrame(rows)
    lead = list(values.columns[:6])
    runs = values[[*lead, *OF_RUN]].assign(epochs=values["best_epoch"] + 1, device="cpu")
    distance = values[[*lead, "distance"]].assign(layer=ALL_LAYERS)
    norms = values[[*lead, "update_norm"]].assign(percentile=50)
    keskar = {"measure": "keskar", "checkpoint": "best", "radius": 1e-3}
    sharpness = values[lead].assign(value=values["sharpness"], **keskar) if chosen.sharpness.enabled else None
    by_epoch = [
        pd.concat([values[[*lead, column]].assign(epoch=epoch) for epoch in range(1, epochs + 1)], ignore_index=True)
        for column in ("train_loss", "epoch_distance")
    ]
    epoch, seed = by_epoch[0]["epoch"], by_epoch[0]["seed"]
    by_epoch[0] = by_epoch[0].assign(
        step=10 * epoch,
        examples=1000 * epoch,
        distance=1 + np.log(epoch) + (0.01 + 0.001 * seed) * (-1.0) ** epoch,
        noise_scale=100.0 + seed,
    )
    by_arm = arm_runs.tabulate(runs, distance, norms, sharpness, arms=chosen.plan.settings_by_arm, metrics=["accuracy"])
    return [runs, by_arm, *by_epoch]

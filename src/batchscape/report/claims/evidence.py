"""What claims are tested on, and the effects that are found: one for each seed, 0 if there is none.

Runs of the same seed share their initial weights and the train/validation split, so all comparisons are paired by seed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscape.config.base import shortest_decimal
from batchscape.report.ranking import LOSS, has_negative_loss

# A ratio of these needs a loss that is never negative. Keskar's φ is relative to 1 + loss.
RATIOS_OF_LOSSES = ("train_loss", LOSS, "min_train_loss", "test_loss", "sharpness")


class NotTested(Exception):
    """Raised if a study cannot test a claim; the message says why."""


@dataclass(frozen=True)
class Effects:
    """The effect in each seed, and what is compared."""

    comparison: str
    """What is compared with what, in words."""
    by_seed: pd.Series
    """Natural logarithm of the ratio, or the difference if the scale of the claim is one; indexed by seed."""
    settings: tuple[str, ...]
    """The settings whose runs are compared."""
    note: str = ""
    """A caveat for the reader."""
    has_bounds: bool = False
    """Whether some effects are bounds: then no test can show that there is no relevant difference."""
    num_seeds: int | None = None
    """Number of seeds that there should be; None: those of all runs."""


@dataclass(frozen=True)
class Evidence:
    """The data that claims are tested on.

    Attributes:
        runs: Table `runs`.
        arm_runs: Table `arm_runs`.
        history: Analysis `history`.
        epoch_distance: Analysis `epoch_distance`.
        small_batch_size: The smaller batch size to compare.
        large_batch_size: The larger batch size to compare.
        length: Up to where runs are compared, such as `at equal steps`.
        curvature: Analysis `curvature`; None if it is disabled.
        branching: Analysis `branching`; None if it is disabled.
        branching_tolerance: How much higher the loss of a branch may be, relative to that of the run's batch size.
    """

    runs: pd.DataFrame
    arm_runs: pd.DataFrame
    history: pd.DataFrame
    epoch_distance: pd.DataFrame
    small_batch_size: int
    large_batch_size: int
    length: str = "to convergence"
    curvature: pd.DataFrame | None = None
    branching: pd.DataFrame | None = None
    branching_tolerance: float = 0.01

    @property
    def final_loss(self) -> str:
        """The column of `runs` with the loss that a run is judged by: on the test side, if there is one."""
        return "test_loss" if "test_loss" in self.runs else LOSS

    @property
    def epoch_time(self) -> str:
        """The column of `runs` with the time of an epoch: CPU time if all runs trained on a CPU, else wall time.

        Other jobs on the same cores increase wall time; and while a GPU computes, a CPU need not.
        """
        return "epoch_cpu_seconds" if self.runs["device"].eq("cpu").all() else "epoch_seconds"

    def require_ratios(self, quantity: str) -> None:
        """Check that a ratio of a quantity means something.

        Raises:
            NotTested: If it is a loss, or relative to one, and a loss of the study is negative: such a loss has no
                natural zero, so that even a ratio of two positive values depends on an arbitrary constant.
        """
        if quantity in RATIOS_OF_LOSSES and has_negative_loss(self.runs):
            raise NotTested(f"a loss of this study is negative, so a ratio of the {in_words(quantity)} has no meaning")

    def arm(self, arm: str, batch_size: int) -> pd.DataFrame:
        """Return the rows of `arm_runs` of one batch size in one arm.

        Raises:
            NotTested: If there are none.
        """
        rows = self.arm_runs[self.arm_runs["arm"] == arm]
        if rows.empty:
            raise NotTested(f"this study has no arm `{arm}`")
        rows = rows[rows["batch_size"] == batch_size]
        if rows.empty:
            raise NotTested(f"the arm `{arm}` has no complete run of batch size {batch_size}")
        return rows

    def small_and_large(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of the small and of the large batch size at the fixed learning rate.

        Raises:
            NotTested: If the study has only one batch size, or no such runs.
        """
        if self.small_batch_size == self.large_batch_size:
            raise NotTested("this study has only one batch size")
        return self.arm("fixed", self.small_batch_size), self.arm("fixed", self.large_batch_size)

    def fixed_and_linear(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of the large batch size at the fixed and at the linearly scaled learning rate.

        Raises:
            NotTested: If there are no such runs, if the two settings are the same, or if the learning rates of the arm
                `linear` are set in the config and not proportional to the batch size.
        """
        self.small_and_large()
        fixed, linear = self.arm("fixed", self.large_batch_size), self.arm("linear", self.large_batch_size)
        scaling = self.large_batch_size / self.small_batch_size
        scaled = learning_rate_of(self.arm("linear", self.small_batch_size)) * scaling
        if not np.isclose(learning_rate_of(linear), scaled, rtol=1e-4):
            raise NotTested("the learning rates of the arm `linear` are not proportional to the batch size")
        if setting_of(fixed) == setting_of(linear):
            raise NotTested(f"the arms `fixed` and `linear` are the same for batch size {self.large_batch_size}")
        return fixed, linear


def log_quantity(rows: pd.DataFrame, quantity: str) -> pd.Series:
    """Return the logarithm of a quantity, indexed by seed; nan for diverged runs."""
    rows = rows[rows["quantity"] == quantity]
    if rows.empty:
        raise NotTested(f"the {in_words(quantity)} of these runs was not measured")
    return log_positive(rows.set_index("seed")["value"].where((rows["status"] != "diverged").to_numpy()))


def log_positive(values: pd.Series) -> pd.Series:
    """Return logarithms; nan for values that have none."""
    return np.log(values.where((values > 0) & np.isfinite(values)))


def in_words(quantity: str) -> str:
    """Return the name of a quantity as in a sentence."""
    return quantity.replace("_", " ")


def setting_of(rows: pd.DataFrame) -> str:
    """Return the setting of rows that share one."""
    return rows["setting"].iloc[0]


def learning_rate_of(rows: pd.DataFrame) -> float:
    """Return the learning rate of rows that share one."""
    return float(rows["learning_rate"].iloc[0])


def format_learning_rate(rows: pd.DataFrame) -> str:
    """Return the learning rate of rows that share one, as text."""
    return shortest_decimal(learning_rate_of(rows))

"""The claims of the original study, of the papers that it builds on, and of later ones."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from batchscape.report.claims.dynamics import (
    critical_over_noise_scale,
    eigenvalue_over_edge,
    last_over_first_critical_batch,
    log_fit_of_distance,
    rate_over_loss_correlation,
)
from batchscape.report.claims.evidence import Effects, Evidence
from batchscape.report.claims.ratios import (
    best_rate_per_doubling,
    large_over_small,
    large_over_small_by_epoch,
    large_over_small_epoch_time,
    linear_over_fixed,
    linear_over_midpoint,
    retuned_at_equal_steps,
    retuned_large_over_small,
    smallest_over_best_other,
)
from batchscape.report.claims.verdict import Direction

Rates = Literal["fixed rate", "linearly scaled rate", "retuned at each batch size", "within runs", "over all settings"]
Scale = Literal["ratio", "difference"]
FIXED: Rates = "fixed rate"
LINEAR: Rates = "linearly scaled rate"
RETUNED: Rates = "retuned at each batch size"
WITHIN: Rates = "within runs"
OVER: Rates = "over all settings"


@dataclass(frozen=True)
class Claim:
    """A claim that a ratio is greater than, less than or equal to 1, or that a difference is to 0.

    Attributes:
        name: Short name, the key in `claims.csv`.
        statement: The claim in one sentence.
        source: Where it is claimed.
        measure: The quantity of the effect, with its unit; `{loss_unit}`, `{time_unit}` and `{final_loss}` are replaced
            by those of the study.
        claimed: What the effect is claimed to be.
        rates: The learning rates at which batch sizes are compared, or that there is no such comparison: the first part
            of the protocol.
        finding: Template of a sentence about the measured effect, which replaces `{}`.
        effects: Computes the effect in each seed.
        scale: What an effect is.
        margin: The largest effect that does not matter: ratios from 1/(1 + margin) to 1 + margin, differences up to it.
            None: that of the study, `comparison.margin`.
    """

    name: str
    statement: str
    source: str
    measure: str
    claimed: Direction
    rates: Rates
    finding: str
    effects: Callable[[Evidence], Effects]
    scale: Scale = "ratio"
    margin: float | None = None


# The article has no numbered sections; these are its parts.
PERFORMANCE = "Chang & Pathak 2020, how small and large batches perform"
REASONS = "Chang & Pathak 2020, why large batches perform worse"
REMEDY = "Chang & Pathak 2020, how to close the gap"
KESKAR = "Keskar et al. 2017, section 2.2"
GOYAL = "Goyal et al. 2017, section 2.1"
SHALLUE = "Shallue et al. 2019"
SMITH = "Smith, Elsen & De 2020"
MCCANDLISH = "McCandlish et al. 2018"
MERRILL = "Merrill et al. 2025"
COHEN = "Cohen et al. 2021; for Adam Cohen et al. 2022"
HOFFER = "Hoffer et al. 2017, section 3"
ANDRIUSHCHENKO = "Andriushchenko et al. 2023"

# Margins of claims for which that of the study is no scale. Set before any study was tested.
SAME_ORDER = 1.0  # a factor of 2, the step between neighboring batch sizes
BIOEQUIVALENCE = 0.25  # a factor of 1.25, usual in tests of equivalence of ratios since Schuirmann 1987
SMALL_CORRELATION = 0.1  # below which Cohen 1988 calls no difference of correlations even small

CLAIMS = (
    Claim(
        "slower_descent",
        "Larger batches lower the training loss more slowly per epoch.",
        PERFORMANCE,
        "mean training loss over the epochs that both runs have{loss_unit}",
        "greater",
        FIXED,
        "Over the epochs that both runs have, the mean training loss is {} times as high",
        partial(large_over_small_by_epoch, column="train_loss"),
    ),
    Claim(
        "higher_validation_loss",
        "Larger batches have a higher best validation loss at the same learning rate.",
        f"{PERFORMANCE}; {KESKAR}",
        "best validation loss{loss_unit}",
        "greater",
        FIXED,
        "The best validation loss is {} times as high",
        partial(large_over_small, quantity="best_validation_loss"),
    ),
    Claim(
        "shorter_epochs",
        "Larger batches take less time per epoch.",
        PERFORMANCE,
        "median time of an epoch ({time_unit})",
        "less",
        FIXED,
        "An epoch takes {} times as long",
        large_over_small_epoch_time,
    ),
    Claim(
        "more_epochs",
        "Larger batches need more epochs to reach the best validation loss.",
        PERFORMANCE,
        "epochs to the best validation loss",
        "greater",
        FIXED,
        "The best validation loss comes after {} times as many epochs",
        partial(large_over_small, quantity="best_epoch"),
    ),
    Claim(
        "nearer_to_init",
        "Larger batches end closer to the initial weights.",
        REASONS,
        "distance of the best weights from the initial weights (Euclidean)",
        "less",
        FIXED,
        "The best weights are {} times as far from the initial weights",
        partial(large_over_small, quantity="distance"),
    ),
    Claim(
        "shorter_moves",
        "Larger batches move the weights less in an epoch.",
        REASONS,
        "mean epoch distance over the epochs that both runs have (Euclidean)",
        "less",
        FIXED,
        "Over the epochs that both runs have, an epoch moves the weights {} times as far",
        partial(large_over_small_by_epoch, column="epoch_distance"),
    ),
    Claim(
        "smaller_updates",
        "Larger batches make smaller updates.",
        REASONS,
        "median norm of a batch update (Euclidean)",
        "less",
        FIXED,
        "The median update is {} times as long",
        partial(large_over_small, quantity="update_norm"),
    ),
    Claim(
        "sharper_minima",
        "Larger batches converge to sharper minima.",
        f"{REASONS}; {KESKAR}",
        "Keskar's φ in the full space, at the largest ε (percent of 1 + loss)",
        "greater",
        FIXED,
        "The minimum is {} times as sharp by Keskar's φ",
        partial(large_over_small, quantity="sharpness"),
    ),
    Claim(
        "linear_closes_gap",
        "Linear scaling closes most of the gap in validation loss.",
        f"{REMEDY}; {GOYAL}",
        "best validation loss{loss_unit}",
        "less",
        LINEAR,
        "With linear scaling, the best validation loss of the large batch is {} times the midpoint between both batch "
        "sizes without it",
        partial(linear_over_midpoint, quantity="best_validation_loss"),
    ),
    Claim(
        "linear_restores_epochs",
        "Linear scaling removes most of the increase in epochs to the best validation loss.",
        REMEDY,
        "epochs to the best validation loss",
        "less",
        LINEAR,
        "With linear scaling, the large batch needs {} times as many epochs as the midpoint between both batch sizes "
        "without it",
        partial(linear_over_midpoint, quantity="best_epoch"),
    ),
    Claim(
        "linear_flattens",
        "Linear scaling flattens the minima of large batches.",
        REMEDY,
        "Keskar's φ in the full space, at the largest ε (percent of 1 + loss)",
        "less",
        LINEAR,
        "With linear scaling, the minimum is {} times as sharp by Keskar's φ",
        partial(linear_over_fixed, quantity="sharpness"),
    ),
    Claim(
        "linear_goes_further",
        "Linear scaling takes large batches further from the initial weights.",
        REMEDY,
        "distance of the best weights from the initial weights (Euclidean)",
        "greater",
        LINEAR,
        "With linear scaling, the best weights are {} times as far from the initial weights",
        partial(linear_over_fixed, quantity="distance"),
    ),
    Claim(
        "smallest_not_best",
        "At a high learning rate the smallest batch is not the best.",
        REMEDY,
        "best validation loss{loss_unit}",
        "greater",
        FIXED,
        "The best validation loss of the smallest batch is {} times that of the best other batch size",
        smallest_over_best_other,
    ),
    Claim(
        "best_rate_grows",
        "The best learning rate grows with the batch size.",
        f"{REMEDY}; {GOYAL}",
        "best learning rate, for a doubling of the batch size",
        "greater",
        RETUNED,
        "For twice the batch size the best learning rate is {} times as high",
        best_rate_per_doubling,
    ),
    Claim(
        "retuned_equal",
        "At retuned rates, larger batches do not end at a higher loss.",
        f"{SHALLUE}; {SMITH} disagree",
        "{final_loss}{loss_unit}",
        "not greater",
        RETUNED,
        "At the best rate of each batch size, the loss of the large one is {} times that of the small one",
        retuned_large_over_small,
    ),
    Claim(
        "worse_at_equal_steps",
        "At retuned rates, larger batches end at a higher loss after equal steps.",
        f"{SMITH}; {SHALLUE} disagree",
        "{final_loss}{loss_unit}",
        "greater",
        RETUNED,
        "At the best rate of each batch size, after equally many steps, the loss of the large one is {} times that of "
        "the small one",
        retuned_at_equal_steps,
    ),
    Claim(
        "noise_scale_predicts",
        "The gradient noise scale predicts the critical batch size.",
        MCCANDLISH,
        "critical batch size by branching, relative to the gradient noise scale",
        "equal",
        WITHIN,
        "The critical batch size by branching is {} times the noise scale",
        critical_over_noise_scale,
        margin=SAME_ORDER,
    ),
    Claim(
        "critical_batch_grows",
        "The critical batch size grows during training.",
        f"{MERRILL}; {MCCANDLISH}",
        "critical batch size by branching (examples)",
        "greater",
        WITHIN,
        "From the first to the last point the critical batch size is multiplied by {}",
        last_over_first_critical_batch,
    ),
    Claim(
        "edge_of_stability",
        "Training ends at the edge of stability.",
        COHEN,
        "largest eigenvalue of the Hessian (for Adam of the preconditioned one) times the learning rate, relative to "
        "the edge",
        "equal",
        WITHIN,
        "The largest eigenvalue times the learning rate is {} times the edge",
        eigenvalue_over_edge,
        margin=BIOEQUIVALENCE,
    ),
    Claim(
        "logarithmic_distance",
        "The distance from the initial weights grows logarithmically.",
        HOFFER,
        "squared error of a power law fitted to the distance, relative to that of a logarithm",
        "greater",
        WITHIN,
        "The squared error of the power law is {} times that of the logarithm",
        log_fit_of_distance,
    ),
    Claim(
        "sharpness_follows_rate",
        "Sharpness follows the learning rate more than generalization.",
        ANDRIUSHCHENKO,
        "absolute rank correlation of Keskar's φ with the learning rate, minus that with the {final_loss}",
        "greater",
        OVER,
        "The absolute rank correlation of sharpness with the learning rate, minus that with the loss, is {}",
        rate_over_loss_correlation,
        scale="difference",
        margin=SMALL_CORRELATION,
    ),
)

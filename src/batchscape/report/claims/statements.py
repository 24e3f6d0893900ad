"""The claims of the original study, and of the papers that it builds on, about batch size and learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from batchscape.report.claims.ratios import (
    Evidence,
    LogRatios,
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

Rates = Literal["fixed rate", "linearly scaled rate", "retuned at each batch size"]
FIXED: Rates = "fixed rate"
LINEAR: Rates = "linearly scaled rate"
RETUNED: Rates = "retuned at each batch size"


@dataclass(frozen=True)
class Claim:
    """A claim that a ratio is greater than, less than or equal to 1.

    Attributes:
        name: Short name, the key in `claims.csv`.
        statement: The claim in one sentence.
        source: Where it is claimed.
        measure: The quantity of the ratio, with its unit; `{loss_unit}`, `{time_unit}` and `{final_loss}` are replaced
            by those of the study.
        claimed: What the ratio is claimed to be.
        rates: The learning rates at which batch sizes are compared, the first part of the protocol.
        finding: Template of a sentence about the measured ratio, which replaces `{}`.
        log_ratios: Computes the log ratio of each seed.
    """

    name: str
    statement: str
    source: str
    measure: str
    claimed: Direction
    rates: Rates
    finding: str
    log_ratios: Callable[[Evidence], LogRatios]


# The article has no numbered sections; these are its parts.
PERFORMANCE = "Chang & Pathak 2020, how small and large batches perform"
REASONS = "Chang & Pathak 2020, why large batches perform worse"
REMEDY = "Chang & Pathak 2020, how to close the gap"
KESKAR = "Keskar et al. 2017, section 2.2"
GOYAL = "Goyal et al. 2017, section 2.1"
SHALLUE = "Shallue et al. 2019"
SMITH = "Smith, Elsen & De 2020"

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
)

"""Table `branches`: the loss of branches by point and batch size, over seeds."""

import numpy as np
import pandas as pd

from batchscape.report.settings import SETTING_COLUMNS
from batchscape.report.tables.over_seeds import over_seeds

QUANTITIES = (
    "examples",
    "epoch",
    "branch_learning_rate",
    "branch_steps",
    "branch_examples",
    "train_loss",
    "validation_loss",
    "excess",
)


def tabulate(branching: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting, point and factor, in the order of training."""
    rows = add_excess(branching)
    # Branches that diverge are those of this table; the run before them may have ended in any way.
    rows = rows.assign(status=rows["branch_status"])
    table = over_seeds(rows, [*SETTING_COLUMNS, "point", "factor", "branch_batch_size"], QUANTITIES)
    return table.sort_values([*SETTING_COLUMNS, "examples_mean", "factor"], kind="stable", ignore_index=True)


def add_excess(branching: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of branches with `excess`, how much higher their training loss is, relative to factor 1.

    It is paired by run: (L_k − L_1)/|L_1|. It is infinite for a branch that diverged, and nan if there is no L_1.
    """
    own = branching[branching["factor"] == 1].set_index(["run", "point"])["train_loss"]
    base = own.reindex(pd.MultiIndex.from_frame(branching[["run", "point"]])).to_numpy()
    loss = branching["train_loss"].mask(branching["branch_status"] == "diverged", np.inf)
    return branching.assign(excess=np.where(np.isfinite(base), (loss - base) / np.abs(base), np.nan))

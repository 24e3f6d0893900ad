"""Training loss on a plane of filter-normalized random directions, settings side by side."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.loss_map import describe_non_finite, plot_loss_map
from batchscape.report.measures import Measures


def draw(landscape: pd.DataFrame, *, measures: Mapping[str, Any]) -> p9.ggplot:
    settings = list(dict.fromkeys(landscape["setting"]))
    many = landscape.groupby(["seed", "direction_seed"]).ngroups > 1
    order = {setting: index for index, setting in enumerate(settings)}
    panels = [
        style.run_panel_title(
            row.batch_size, row.learning_rate, row.setting, row.status,
            f"seed {row.seed}, directions {row.direction_seed}" if many else "",
        )
        for row in landscape.itertuples()
    ]  # fmt: skip
    cells = landscape.assign(panel=panels, order=landscape["setting"].map(order))
    cells = cells.sort_values(["seed", "direction_seed", "order"], kind="stable")
    first = landscape.iloc[0]
    return plot_loss_map(cells, min(len(settings), 2), Measures.from_settings(measures)) + p9.labs(
        title=f"Training loss on a random plane through the {style.weights_label(first['checkpoint'])}",
        subtitle=(
            f"Filter-normalized directions, the same in all panels{' with the same direction seed' if many else ''}; "
            f"colors and contour levels are shared by all panels{describe_non_finite(landscape['loss'])}"
            f"{style.describe_batch_norm(landscape['batch_norm'])}"
        ),
        x="x, along the first direction",
        y="y, along the second",
    )

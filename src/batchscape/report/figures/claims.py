"""The claims of the literature: one row per claim, with its ratio, interval and verdict."""

import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.numbers import format_number

# Those of tested claims, in the colors of the page; a shape per verdict for grayscale prints and color-blind readers.
VERDICTS = {
    "supported": ("#0B5D2E", "o"),
    "refuted": ("#8A1C1C", "X"),
    "no relevant difference": ("#1F3F6B", "s"),
    "undecided": ("#777777", "D"),
}
# Intervals of few seeds can span decades: the axis ends at this factor beyond the outermost effects.
AXIS_MARGIN = 4


def draw(claims: pd.DataFrame) -> p9.ggplot:
    texts = [_numbers(*values) for values in claims[["effect", "ci95_low", "ci95_high"]].itertuples(index=False)]
    is_ratio = claims["scale"] == "ratio"
    # A difference is not on the axis of ratios; its numbers are beside it.
    signs = np.where(is_ratio | claims["effect"].isna(), "", "Δ ")
    claims = claims.assign(
        numbers=[f"{sign}{text}" for sign, text in zip(signs, texts, strict=True)],
        **{name: claims[name].where(is_ratio) for name in ("effect", "ci95_low", "ci95_high")},
    )
    effects = claims["effect"].dropna()
    left, right = min([1, *effects]) / AXIS_MARGIN, max([1, *effects]) * AXIS_MARGIN
    # A claim that is not tested has words in place of a point, so that its color is not seen.
    verdicts = claims["verdict"].replace("not tested", "undecided")
    rows = claims.assign(
        row=np.arange(len(claims), 0, -1),
        verdict=pd.Categorical(verdicts, categories=list(VERDICTS), ordered=True),
        side=claims["claimed"]
        .map({"greater": right, "less": left, "equal": None, "not greater": left})
        .fillna(1 / (1 + claims["margin"])),
        other_side=np.where(claims["claimed"].isin(["equal", "not greater"]), 1 + claims["margin"], 1),
        start=claims["ci95_low"].clip(lower=left),
        end=claims["ci95_high"].clip(upper=right),
    )
    beyond = [
        rows[rows["ci95_low"] < left].assign(x=left, sign="<"),
        rows[rows["ci95_high"] > right].assign(x=right, sign=">"),
    ]
    colors, shapes = ({name: style_of[index] for name, style_of in VERDICTS.items()} for index in (0, 1))
    return (
        p9.ggplot(rows, p9.aes("effect", "row", color="verdict"))
        + p9.geom_rect(
            p9.aes(xmin="side", xmax="other_side", ymin="row - 0.42", ymax="row + 0.42"),
            rows[rows["scale"] == "ratio"],
            fill="#EEEEEE",
            color="none",
        )
        + p9.geom_vline(xintercept=1, color="#777777", size=0.4)
        + p9.geom_segment(
            p9.aes("start", "row", xend="end", yend="row"),
            rows.dropna(subset=["ci95_low"]),
            size=0.9,
            show_legend=False,
        )
        + _draw_interval_arrows(pd.concat(beyond))
        + p9.geom_point(p9.aes(shape="verdict"), rows.dropna(subset=["effect"]), size=3)
        + style.geom_text_beside(p9.aes(right, label="numbers"), ha="left", color="#222222")
        + p9.scale_x_log10(
            limits=(left, right),
            breaks=_breaks(left, right),
            minor_breaks=[],
            expand=(0, 0),
            labels=style.tick_labels,
        )
        + p9.scale_y_continuous(
            breaks=rows["row"].tolist(),
            labels=rows["statement"].tolist(),
            minor_breaks=[],
            limits=(0.5, len(rows) + 0.5),
            expand=(0, 0.1),
        )
        + p9.scale_color_manual(values=colors, limits=list(VERDICTS), name="Verdict")
        + p9.scale_shape_manual(values=shapes, limits=list(VERDICTS), name="Verdict")
        + p9.labs(
            title="Which claims of the literature hold here",
            subtitle=(
                f"Ratio, paired by seed; mean and 95 % interval over {style.describe_seeds(claims['n_seeds'], [])}; "
                f"shaded: what is claimed; arrow: the interval extends beyond the axis; Δ: a difference, which has no "
                f"point{_describe_recipe(claims)}"
            ),
            x="Ratio (1: no difference)",
            y="",
        )
        + style.theme()
        + p9.theme(
            panel_grid_major_y=p9.element_blank(),
            axis_text_y=p9.element_text(color="#222222"),
            axis_ticks_major_y=p9.element_blank(),
        )
    )


def _describe_recipe(claims: pd.DataFrame) -> str:
    """Return a note if the claims were made for another recipe than that of the study."""
    return f". The claims were {claims['recipe'].iloc[0]}" if "recipe" in claims else ""


def _draw_interval_arrows(beyond: pd.DataFrame) -> list:
    return [
        p9.geom_point(p9.aes("x"), rows, shape=sign, size=2, show_legend=False) for sign, rows in beyond.groupby("sign")
    ]


def _breaks(left: float, right: float) -> list[float]:
    steps = (1, 2, 5) if right / left < 1000 else (1,)
    breaks = [float(f"{step}e{power}") for power in range(-12, 13) for step in steps]
    return [value for value in breaks if left <= value <= right]


def _numbers(effect: float, low: float, high: float) -> str:
    if np.isnan(effect):
        return "not tested"
    # Numbers decades away have one digit, so that the interval leaves room for the axis.
    mean, *ends = (
        format_number(value if 0.01 <= abs(value) < 1000 or np.isnan(value) else float(f"{value:.0e}"))
        for value in (effect, low, high)
    )
    return mean if np.isnan(low) else f"{mean}\n{ends[0]} to {ends[1]}"

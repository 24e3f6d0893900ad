"""The data of the interactive figures, as the page embeds it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from batchscape.report.figures import style
from batchscape.report.figures.loss_axis import LossAxis
from batchscape.report.headings import heading
from batchscape.report.interactive.views import FIRST_LABEL, VIEWS, View, name_column
from batchscape.report.measures import Measures
from batchscape.report.settings import setting_details

POINTS_PER_LINE = (256, 128, 64, 32, 16)
"""How many points of a line are in the page: the first of these with which the data fits."""
DIGITS = 5
LARGEST_EXACT = 2**53
"""Up to which a browser, whose numbers are floats, has all integers."""
DIMENSIONS = ("batch_size", "learning_rate", "arm", "seed")
NO_ARM, TUNED = "in no arm", "tuned"


@dataclass
class Labels:
    """The values of a dimension in their order, which figures switch on and off and color."""

    title: str
    texts: list[str]
    colors: list[str]

    def codes(self, values: Sequence[str] | pd.Series) -> list[int]:
        """Return the position of each value."""
        place = {text: index for index, text in enumerate(self.texts)}
        return [place[value] for value in values]


def build_payload(
    figures: Sequence[str], frames: Mapping[str, pd.DataFrame], measures: Measures, max_bytes: int
) -> str:
    """Return the data of the interactive figures as JSON; empty if there is none.

    Args:
        figures: Names of the figures of the page; those without a `View`, or without its files, are left out.
        frames: Tables and results of analyses by their path below the folder of the study, such as `tables/runs`.
        measures: What the loss and the metrics are called, and their units.
        max_bytes: How long the text may be.

    Returns:
        An object with `dimensions` (title, labels and colors of each), `data` (the series that figures share) and
        `figures`; equal arguments give equal text, in which `<` is escaped. If the data is too large even with few
        points of each line, the figures with the largest data are left out.
    """
    names = [name for name in figures if name in VIEWS and any(file in frames for file in VIEWS[name].sources)]
    text = ""
    while names:
        for points in POINTS_PER_LINE:
            made = _Builder(frames, measures, points).build(names)
            names = list(made["figures"])  # the others have no row to draw
            if not names:
                return ""
            text = _encode(made)
            if len(text.encode()) <= max_bytes:
                return text
        largest = max(made["data"], key=lambda key: len(_encode(made["data"][key])))
        names = [name for name in names if largest not in _keys_of(made["figures"][name])]
    return ""


def _keys_of(figure: Mapping[str, Any]) -> list[str]:
    return [layer["data"] for layer in figure["layers"]]


def _encode(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")  # nothing in it can end the element that contains it


class _Builder:
    """Builds the data of figures with at most so many points of each line."""

    def __init__(self, frames: Mapping[str, pd.DataFrame], measures: Measures, points: int):
        self.frames, self.measures, self.points = frames, measures, points
        self.arms = _arms_by_setting(frames.get("tables/arm_runs"))
        self.values: dict[str, dict[str, None]] = {}
        self.is_thinned: set[str] = set()
        self.is_signed: set[str] = set()
        self.first: dict[str, str] = {}

    def build(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the payload of figures; those without a row to draw are left out."""
        data: dict[str, dict[str, Any]] = {}
        layers: dict[str, list[dict[str, str]]] = {}
        for name in names:
            view = VIEWS[name]
            for kind, file in (("runs", view.runs), ("means", view.means)):
                if file not in self.frames:
                    continue
                key = view.key(file)
                if key not in data:
                    data[key] = self._series(key, view, self._prepare(view, file), kind)
                if data[key]["series"]:
                    layers.setdefault(name, []).append({"data": key, "kind": kind})
        dimensions = {name: self._labels(name) for name in self.values}
        used = {layer["data"] for each in layers.values() for layer in each}
        return {
            "dimensions": {
                name: {"title": labels.title, "labels": labels.texts, "colors": labels.colors}
                for name, labels in dimensions.items()
            },
            "data": {key: self._with_codes(each, dimensions) for key, each in data.items() if key in used},
            "figures": {name: self._figure(VIEWS[name], layers[name], dimensions) for name in layers},
        }

    @staticmethod
    def _with_codes(data: dict[str, Any], dimensions: Mapping[str, Labels]) -> dict[str, Any]:
        """Return series whose labels are replaced by their positions."""
        series = [
            [
                name,
                [dimensions[key].codes(labels) for key, labels in zip(data["dimensions"], by, strict=True)],
                panel,
                columns,
            ]
            for name, by, panel, columns in data["series"]
        ]
        return {**data, "series": series}

    def _prepare(self, view: View, file: str) -> pd.DataFrame:
        frame = self.frames[file]
        if "status" in frame:
            frame = frame[frame["status"] != "diverged"]
        frame = view.select(frame, self.measures)
        for name, label in view.start.items():
            if label == FIRST_LABEL and len(frame):
                self.first.setdefault(name, str(frame[name].iloc[0]))
        return frame

    def _columns(self, view: View, kind: str) -> list[str]:
        """Return the columns that a figure reads, of which a file may lack some."""
        names = [name for panel in view.panels if (name := name_column(panel, self.measures))]
        if view.mark == "surface":
            return [view.x, "y", *names]
        if kind == "runs":
            return [view.x, *names]
        return [view.x, f"{view.x}_mean", *(f"{name}_{part}" for name in names for part in ("mean", "sd"))]

    def _series(self, key: str, view: View, frame: pd.DataFrame, kind: str) -> dict[str, Any]:
        """Return the rows of a file, grouped by what can be switched on and off."""
        columns = [name for name in self._columns(view, kind) if name in frame]
        if LossAxis.of(*(frame[name] for name in columns if name.removesuffix("_mean").endswith("loss"))).signed:
            self.is_signed.add(key)
        dimensions = self._dimensions_of(view, frame)
        identity = ("run", "setting", *DIMENSIONS, *view.by, view.panel_by)
        by = [name for name in dict.fromkeys(identity) if name in frame]
        # Also if only one of the values, such as of targets, has something to draw.
        varying = [name for name in view.by if name in frame and frame[name].nunique() > 1]
        if view.mark != "surface":
            drawn = [name for name in columns if name not in (view.x, f"{view.x}_mean")]
            frame = frame.dropna(subset=drawn, how="all")
        series = []
        for _, rows in frame.groupby(by, sort=False, dropna=False):
            first = rows.iloc[0]
            labels = [self._labels_of(name, first) for name in dimensions]
            for name, each in zip(dimensions, labels, strict=True):
                self.values.setdefault(name, {}).update(dict.fromkeys(each))
            if view.mark == "surface":
                cells = _surface(rows, columns)
            else:
                thinned = rows.iloc[self._thin(key, len(rows))]
                cells = [_round(thinned[column]) for column in columns]
            if cells:
                panel = self._panel_title(view, first[view.panel_by]) if view.panel_by else ""
                series.append([_name(first, varying), labels, panel, cells])
        named = ["x", "y", "z", "path"] if view.mark == "surface" else columns
        return {"dimensions": dimensions, "columns": named, "series": series}

    def _thin(self, key: str, length: int) -> np.ndarray:
        """Return the positions of those points of a line that are in the page, evenly spaced on a logarithmic axis."""
        if length <= self.points:
            return np.arange(length)
        self.is_thinned.add(key)
        return np.unique(np.round(np.geomspace(1, length, self.points)).astype(int)) - 1

    def _dimensions_of(self, view: View, frame: pd.DataFrame) -> list[str]:
        """Return what can be switched on and off in a file."""
        has_arms = bool(self.arms) and "setting" in frame
        names = dict.fromkeys((*DIMENSIONS, *view.by))
        hidden = (view.panel_by, *view.without)
        return [name for name in names if name not in hidden and (name in frame or (name == "arm" and has_arms))]

    def _labels_of(self, dimension: str, row: pd.Series) -> list[str]:
        """Return the labels of a row; a setting may be in several arms."""
        if dimension == "arm" and "arm" not in row:
            return self.arms.get(row["setting"], [NO_ARM])
        if dimension == "learning_rate":
            # What the search found differs between batch sizes.
            is_tuned = "setting" in row and setting_details(row["setting"]).is_tuned
            return [TUNED if is_tuned else style.format_tick(row["learning_rate"])]
        return [str(row[dimension])]

    def _panel_title(self, view: View, value: Any) -> str:
        if view.panel_by == "learning_rate":
            return style.learning_rate_label(value)
        return heading(value, self.measures) if view.panel_by == "quantity" else str(value)

    def _labels(self, name: str) -> Labels:
        """Return the labels of a dimension in their order, with their colors."""
        texts = list(self.values[name])
        match name:
            case "batch_size" | "seed":
                texts.sort(key=int)
            case "learning_rate":
                texts.sort(key=lambda text: np.inf if text == TUNED else float(text.replace(",", "")))
            case "arm":
                order = [*dict.fromkeys(arm for arms in self.arms.values() for arm in arms), *texts]
                texts.sort(key=lambda text: (text == NO_ARM, order.index(text)))
            case "checkpoint":
                texts = style.sort_checkpoints(texts)
            case _:
                pass  # in the order of the table
        if name == "batch_size":
            colors = list(style.batch_size_colors(pd.Series(texts)).values())
        elif name == "arm":
            colors = list(style.arm_colors(texts).values())
        else:
            stops = np.linspace(0, 0.85, len(texts)) if len(texts) > 1 else [0.0]
            colors = [mpl.colors.to_hex(mpl.colormaps["viridis"](stop)) for stop in stops]
        return Labels(heading(name, self.measures), texts, colors)

    def _figure(self, view: View, layers: list[dict[str, Any]], dimensions: Mapping[str, Labels]) -> dict[str, Any]:
        panels = [name for panel in view.panels if (name := name_column(panel, self.measures))]
        start = {name: self.first.get(name, label) for name, label in view.start.items()}
        start_codes = {
            name: dimensions[name].texts.index(label)
            for name, label in start.items()
            if name in dimensions and label in dimensions[name].texts
        }
        # A negative loss has no logarithm.
        is_signed = any(layer["data"] in self.is_signed for layer in layers)
        return {
            "mark": view.mark,
            "x": view.x,
            "xTitle": heading(view.x, self.measures),
            "panels": [{"column": name, "title": heading(name, self.measures)} for name in panels],
            "panelBy": bool(view.panel_by),
            "layers": layers,
            "color": view.color,
            "start": start_codes,
            "log": "".join(axis for axis in view.log if axis == "x" or not is_signed),
            "points": self.points if any(layer["data"] in self.is_thinned for layer in layers) else 0,
        }


def _arms_by_setting(arm_runs: pd.DataFrame | None) -> dict[str, list[str]]:
    """Return the arms of each setting, in the order of the table."""
    if arm_runs is None:
        return {}
    pairs = arm_runs[["arm", "setting"]].drop_duplicates()
    return {setting: list(rows["arm"]) for setting, rows in pairs.groupby("setting", sort=False)}


def _name(row: pd.Series, varying: Sequence[str]) -> str:
    """Return the name of the run or setting of a row, if it has one, and what else tells its series apart."""
    seed = f"-seed{row['seed']}" if "seed" in row else ""
    name = str(row["run"]) if "run" in row else f"{row.get('setting', '')}{seed}".removeprefix("-")
    # A pair of runs is a setting itself.
    return ", ".join(filter(None, [name, *(str(row[each]) for each in varying if row[each] != row.get("setting"))]))


def _surface(rows: pd.DataFrame, columns: Sequence[str]) -> list[Any]:
    """Return the grid of a plane, x (n,), y (m,) and z (m, n), and the points of a trajectory on it; empty if none."""
    x, y, z = columns
    on_path = rows["epoch"].notna() if "epoch" in rows else pd.Series(False, rows.index)
    grid = rows[~on_path].dropna(subset=[x, y])
    if grid.empty:
        return []
    cells = grid.pivot(index=y, columns=x, values=z)
    path = rows[on_path].dropna(subset=[x, y])
    points = [_round(path[column]) for column in columns] if len(path) else []
    if len(path):
        points.append(list(path["checkpoint"]))
    return [
        _round(cells.columns.to_series()),
        _round(cells.index.to_series()),
        [_round(row) for _, row in cells.iterrows()],
        points,
    ]


def _round(values: pd.Series) -> list[Any]:
    """Return numbers with as many digits as a figure can show; what is not finite has no place in JSON.

    Integers, such as steps, are exact.
    """
    if not pd.api.types.is_float_dtype(values):
        return values.tolist()
    return [_round_number(float(value)) for value in values]


def _round_number(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    is_exact = value.is_integer() and abs(value) <= LARGEST_EXACT
    rounded = value if is_exact else float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded

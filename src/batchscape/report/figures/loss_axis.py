"""The axis and the colors of losses: logarithmic, unless a loss is negative."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import plotnine as p9
from mizani.breaks import breaks_extended

from batchscape.report.figures import style

MAX_BREAKS = 7


@dataclass(frozen=True)
class LossAxis:
    """How losses are placed on an axis or colored.

    A loss of the user's own, such as a log-likelihood of densities, can be negative, where a logarithm does not exist.
    Its axis is x → arcsinh(x/2): linear around 0, and logarithmic on both sides.

    Attributes:
        signed: Whether a loss is negative.
    """

    signed: bool = False

    @classmethod
    def of(cls, *losses: pd.Series) -> Self:
        """Return the axis that all of the losses have a place on."""
        return cls(any(bool((values[np.isfinite(values)] < 0).any()) for values in losses))

    def keep_drawable(self, frame: pd.DataFrame, column: str) -> tuple[pd.DataFrame, str]:
        """Return `style.keep_drawable` for this axis."""
        return style.keep_drawable(frame, column, log=not self.signed)

    def transform(self, values: Any) -> Any:
        """Return the positions of losses; a logarithmic axis has none for 0."""
        return np.arcsinh(np.asarray(values) / 2) if self.signed else np.log(values)

    def invert(self, positions: Any) -> Any:
        """Return the losses at positions."""
        return 2 * np.sinh(positions) if self.signed else np.exp(positions)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of a continuous scale of plotnine."""
        if self.signed:
            return {"trans": "pseudo_log", "breaks": signed_breaks, "labels": style.tick_labels}
        return {"trans": "log10", "labels": style.tick_labels}

    def y_scale(self) -> p9.scale_y_continuous:
        """Return the scale of a y axis."""
        return p9.scale_y_continuous(**self.options)


LOGARITHMIC = LossAxis()


def signed_breaks(limits: tuple[float, float]) -> list[float]:
    """Return the ticks of a signed axis between two losses: round numbers, or if it is long, 0 and powers of ten."""
    low, high = limits
    extent = max(abs(low), abs(high))
    if extent <= 10:  # the axis is close to linear
        step = style.round_up((high - low) / (MAX_BREAKS - 1))
        first = np.ceil(low / step)
        return [float(f"{step * index:.6g}") + 0.0 for index in np.arange(first, np.floor(high / step) + 1)]
    # 1 is too close to 0 on an axis of several decades.
    powers = [10.0**power for power in range(int(extent > 100), int(np.log10(extent)) + 1)]
    values = [value for value in (*(-power for power in reversed(powers)), 0.0, *powers) if low <= value <= high]
    if len(values) < 2:  # one tick gives no scale
        return [float(value) for value in breaks_extended(only_inside=True)(limits)]
    return values[:: -(-len(values) // MAX_BREAKS)]

"""Section `figures`: the size, letters and file formats of the figures."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import AsTuple, Distinct, FromText, Section, cross_field_error

# The narrowest figure, in widths of a letter "m" of its smallest text.
MIN_WIDTH = 28
POINTS_PER_INCH = 72

FigureFormat = Literal["pdf", "png", "svg"]


class FiguresConfig(Section):
    """How figures look, in the report and in `figures/`: for example for a column of a paper. What they show does not
    depend on it."""

    width: Annotated[float, Field(ge=2, le=20, allow_inf_nan=False, examples=[3.3]), FromText] = 6.5
    """Width in inches. The height follows: narrow figures have fewer panels side by side."""

    font_size: Annotated[float, Field(ge=4, le=24, allow_inf_nan=False, examples=[7]), FromText] = 8.0
    """Size in points of the smallest letters, such as annotations and the titles of panels; ticks and legends are 1.1
    times, titles of axes 1.25 times, and titles of figures 1.5 times as large."""

    titles: bool = True
    """Whether the title and the remarks, such as the number of seeds, are in the picture. With `false` only the report
    shows them, below the figure, for the caption of the paper."""

    formats: Annotated[tuple[FigureFormat, ...], AsTuple, Distinct, Field(examples=[["pdf"]])] = ("pdf", "png")
    """Files of each figure: `pdf`, `svg` or `png`. The PNG is always written, because the report shows it."""

    @model_validator(mode="after")
    def _letters_fit_the_width(self) -> Self:
        largest = self.width * POINTS_PER_INCH / MIN_WIDTH
        if self.font_size > largest:
            raise cross_field_error(
                "font_size",
                f"{self.font_size:g} points are too large for a width of {self.width:g} inches; write at most "
                f"{int(10 * largest) / 10:g}, or a larger `width`",
            )
        return self

    @property
    def file_formats(self) -> tuple[FigureFormat, ...]:
        """The formats that are written: the PNG, and then the others in alphabetical order."""
        return ("png", *sorted({*self.formats} - {"png"}))

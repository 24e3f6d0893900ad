"""The types of chapters and captions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from batchscape.report.measures import Measures


@dataclass(frozen=True)
class Paper:
    """The source of a measure or an expectation."""

    name: str
    link: str | None = None


@dataclass(frozen=True)
class Caption:
    """The text beside a figure: what it shows, how to read it, and what would be surprising.

    `{metric_item}` and `{and_metric}` in `shows` are replaced by the metric of a study, such as "accuracy, " and " and
    accuracy"; by nothing if it has none.
    """

    title: str
    shows: str
    reading: str
    surprise: str
    papers: tuple[Paper, ...]
    claims: tuple[str, ...] = ()
    """The claims that test the expectation behind `surprise`; the report prints their results below the figure."""

    def in_words_of(self, measures: Measures) -> Self:
        """Return the caption with the metric of a study."""
        return replace(self, shows=self.shows.format(**measures.caption_words))


@dataclass(frozen=True)
class Chapter:
    """A section of the report with its figures, in the order in which they are shown."""

    key: str
    title: str
    about: str
    figures: Mapping[str, Caption]
    protocol: str = ""
    """At which learning rates the batch sizes are compared; empty if the figures differ in this."""

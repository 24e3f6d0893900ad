"""Section `confirmation`: the best settings, trained again with seeds that took no part in their choice."""

import json
from collections.abc import Iterable
from itertools import count, islice
from typing import Annotated

from pydantic import Field, JsonValue

from batchscape.config.base import JobSelection, PositiveInt, Section
from batchscape.config.run import RunSpec

FIRST_SEED = 1000


class ConfirmationConfig(Section):
    """The settings with the lowest validation loss, the finalists, are trained again with seeds that neither the grid
    nor the search uses. The report recommends one of them, by its validation loss with these seeds."""

    enabled: Annotated[bool, JobSelection] = True
    """`false` disables the confirmation: the report then recommends a setting by the loss that chose it."""

    settings: Annotated[PositiveInt, Field(examples=[3]), JobSelection] = 3
    """Number of finalists; all settings of the study if it has fewer."""

    seeds: Annotated[PositiveInt, Field(examples=[3]), JobSelection] = 3
    """Number of seeds: the first integers from 1000 on that neither `grid` nor `tuning` uses, so that more seeds of the
    grid do not change them."""


class Finalist(Section):
    """A setting that is trained again.

    Attributes:
        setting: Its name.
        diverged: Whether a run of the grid diverged; such a setting is a finalist only if too few others are left.
        spec: The specification of its runs, as JSON without the seed.
    """

    setting: str
    diverged: bool
    spec: dict[str, JsonValue]

    def run_spec(self, seed: int) -> RunSpec:
        """Return the specification of the run with a seed."""
        return RunSpec.model_validate_json(json.dumps({**self.spec, "seed": seed}))


class Finalists(Section):
    """The settings that are trained again, best first."""

    finalists: tuple[Finalist, ...]


def confirmation_seeds(number: int, used: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds of the confirmation: the first integers from 1000 on that are not in `used`."""
    taken = frozenset(used)
    return tuple(islice((seed for seed in count(FIRST_SEED) if seed not in taken), number))

"""What the training rows of a table decide: standardization and categories."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from batchscape.config.data.tables import TableSection
from batchscape.data.moments import Moments
from batchscape.data.prepared import CATEGORIES, INPUTS, TARGETS, WEIGHTS, Chunk
from batchscape.data.source import Fitted, join_names
from batchscape.data.spec import DataSpec
from batchscape.data.table_files import TableFile, quote
from batchscape.errors import UserError

# Of a column of text, at most this many different values, and as features at most this share of all values, if there
# are more than a few.
MAX_LEVELS = 100_000
MAX_LEVEL_SHARE = 0.5
FEW_LEVELS = 20

# Columns that one-hot encoding may make.
MAX_ONE_HOT = 1_000

MISSING = -1  # the code of a missing category


@dataclass
class Levels:
    """The different values of a column of text, by their code."""

    file: TableFile
    name: str
    hint: str = "leave it out with data.exclude"
    """What to do if there are too many."""
    codes: dict[str, int] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)

    def encode(self, texts: Iterable[str | None]) -> np.ndarray:
        """Return the codes of values, (n,) int32, MISSING for None."""
        codes = self.codes
        encoded = np.fromiter(
            (MISSING if text is None else codes.setdefault(text, len(codes)) for text in texts), np.int32
        )
        if len(codes) > MAX_LEVELS:
            raise self.file.error(f"has more than {MAX_LEVELS:,} different texts in column `{self.name}`; {self.hint}")
        self.counts.update(encoded[encoded != MISSING].tolist())
        return encoded

    @property
    def names(self) -> list[str]:
        """The values in order of their codes."""
        return list(self.codes)

    def require_repeats(self, use: str, hint: str) -> None:
        """Raise UserError if almost every row has another value."""
        total = self.counts.total()
        if len(self.codes) > max(FEW_LEVELS, MAX_LEVEL_SHARE * total):
            example = quote(next(iter(self.codes)))
            raise self.file.error(
                f"has {len(self.codes):,} different texts in {total:,} rows of the {use} `{self.name}`, such as "
                f"{example}, so that nothing can be learned from them; {hint}"
            )


@dataclass(frozen=True)
class TableFit:
    """Fits the columns to the training rows.

    Attributes:
        config: What the columns are used for.
        numbers: Names of the columns of numbers.
        categories: The columns of categories.
        classes: Names of the classes; empty for regression.
    """

    config: TableSection
    numbers: Sequence[str]
    categories: Sequence[Levels]
    classes: tuple[str, ...]

    def __call__(self, chunks: Iterable[Chunk]) -> Fitted:
        """Return what an example is, and the transformation of rows: (n, numbers) float64 and (n, categories) int32."""
        config = self.config
        moments, targets = Moments(len(self.numbers)), Moments(len(config.target))
        counts = [np.zeros(len(levels.codes) + 1, np.int64) for levels in self.categories]  # the last: missing
        for chunk in chunks:
            moments.add(chunk[INPUTS])
            for column, count in enumerate(counts):
                count += np.bincount(chunk[CATEGORIES][:, column] % len(count), minlength=len(count))
            if not self.classes:
                targets.add(self._transform_target(chunk[TARGETS]).reshape(len(chunk[TARGETS]), -1))
        used = np.flatnonzero(moments.varies)
        used_categories = [index for index, count in enumerate(counts) if np.count_nonzero(count) > 1]
        if not len(used) and not used_categories:
            raise UserError("data.features: all features are constant in the training rows; name columns that vary")
        means, deviations = moments.means[used], moments.deviations[used]
        self._require_scales(used, deviations)
        tables = [self._number_levels(index, counts[index]) for index in used_categories]
        sizes = [int(table.max()) for table in tables]
        one_hot = config.encoding == "one_hot" or not tables
        if one_hot and sum(sizes) > MAX_ONE_HOT:
            raise UserError(
                f"data.encoding: the categories make {sum(sizes):,} one-hot columns, more than {MAX_ONE_HOT:,}; write "
                "`encoding: embedded`, or add columns to data.exclude"
            )
        center, scale = self._target_scale(targets)

        def transform(chunk: Chunk) -> dict[str, np.ndarray]:
            with np.errstate(over="ignore"):  # infinite values are reported with their row
                numbers = ((chunk[INPUTS][:, used] - means) / deviations).astype(np.float32)
            numbers[np.isnan(numbers)] = 0  # the mean of the training rows
            # MISSING, -1, is the last element of a table.
            indices = [table[chunk[CATEGORIES][:, index]] for table, index in zip(tables, used_categories, strict=True)]
            result = {name: chunk[name] for name in (TARGETS, WEIGHTS) if name in chunk}
            if one_hot:
                result[INPUTS] = np.concatenate([numbers, *map(_one_hot, indices, sizes)], axis=1)
            else:
                result |= {INPUTS: numbers, CATEGORIES: np.stack(indices, axis=1)}
            if not self.classes:
                result[TARGETS] = (self._transform_target(chunk[TARGETS]) - center) / scale
            return result

        spec = DataSpec(
            "numbers" if one_hot else "columns",
            (len(used) + (sum(sizes) if one_hot else 0),),
            "class" if self.classes else "numbers",
            self.classes,
            categories=() if one_hot else tuple(size + 1 for size in sizes),
        )
        if not self.classes:
            spec = replace(
                spec,
                target_shape=(len(config.target),) if len(config.target) > 1 else (),
                target_name=config.target_name,
                target_scale=float(scale) if np.ndim(scale) == 0 else 1.0,
            )
        return Fitted(spec, transform, self._notes(moments, counts, used_categories, sizes))

    def _require_scales(self, used: np.ndarray, deviations: np.ndarray) -> None:
        for index, deviation in zip(used, deviations, strict=True):
            if not (0 < deviation < np.inf):  # its square is no float
                problem = "too close to each other" if deviation == 0 else "too large"
                raise UserError(
                    f"data.features: the numbers of column `{self.numbers[index]}` are {problem} to be standardized; "
                    "rescale them, or add the column to data.exclude"
                )

    def _transform_target(self, targets: np.ndarray) -> np.ndarray:
        return np.log(targets) if self.config.transform == "log" else targets

    def _target_scale(self, targets: Moments) -> tuple[np.ndarray | float, np.ndarray | float]:
        """Return what is subtracted from the targets, and what they are divided by."""
        if self.config.transform == "none":
            return 0.0, 1.0
        if self.config.transform == "log":  # an offset, which no metric sees, but which training would have to find
            return (targets.means[0] if len(targets.means) == 1 else targets.means), 1.0
        constant = [name for name, varies in zip(self.config.target, targets.varies, strict=True) if not varies]
        if constant:
            raise UserError(f"data.target: `{constant[0]}` is constant in the training rows; name a column that varies")
        center, scale = targets.means, targets.deviations
        for name, deviation in zip(self.config.target, scale, strict=True):
            if not (0 < deviation < np.inf):
                raise UserError(f"data.target: the numbers of `{name}` are too large to be standardized; rescale them")
        return (center[0], scale[0]) if len(center) == 1 else (center, scale)

    def _number_levels(self, index: int, counts: np.ndarray) -> np.ndarray:
        """Return the index of each code of a column, from 1 in order of the names of those that train; others are 0."""
        names = self.categories[index].names
        table = np.zeros(len(counts), np.int32)
        order = sorted(np.flatnonzero(counts[:-1]), key=lambda code: names[code])
        table[order] = np.arange(1, len(order) + 1)
        return table

    def _notes(
        self, moments: Moments, counts: Sequence[np.ndarray], used_categories: Sequence[int], sizes: Sequence[int]
    ) -> list[str]:
        notes = []
        if sizes:
            named = [
                f"{self.categories[index].name} ({size:,})" for index, size in zip(used_categories, sizes, strict=True)
            ]
            how = "one-hot" if self.config.encoding == "one_hot" else "indices to embed"
            notes.append(f"categories of the training rows, {how}: {join_names(named, 12)}")
        constant = [name for name, varies in zip(self.numbers, moments.varies, strict=True) if not varies]
        constant += [levels.name for index, levels in enumerate(self.categories) if index not in used_categories]
        if constant:
            notes.append(f"left out because they are constant in the training rows: {join_names(constant, 12)}")
        unknown = {}
        for levels, count in zip(self.categories, counts, strict=True):
            if number := sum(levels.counts[int(code)] for code in np.flatnonzero(count[:-1] == 0)):
                unknown[levels.name] = number
        if unknown:
            named = [f"{name} ({number:,} rows)" for name, number in unknown.items()]
            notes.append(f"unknown categories, because no training row has them: {join_names(named, 12)}")
        return notes


def _one_hot(indices: np.ndarray, size: int) -> np.ndarray:
    """Return indices from 1 to `size` as (n, size) float32; index 0 is all zeros."""
    return (indices[:, None] == np.arange(1, size + 1)).astype(np.float32)

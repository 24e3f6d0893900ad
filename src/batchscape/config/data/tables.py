"""Sections of the sources of tables."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from batchscape.config.base import AsTuple, Distinct, cross_field_error
from batchscape.config.data.section import DataSection, TaskName

ColumnNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AsTuple, Distinct]


def _text_to_tuple(value: Any) -> Any:
    if isinstance(value, int | float):  # such as the name 2020, which YAML takes for a number
        name = str(value).lower()  # true, as in YAML
        raise ValueError(f'must be text in quotes, got {name}; write `target: "{name}"`')
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Target = Annotated[
    ColumnNames,
    BeforeValidator(_text_to_tuple, json_schema_input_type=str | list[str]),
    Field(min_length=1, examples=["price"]),
]


class TableSection(DataSection):
    """What a table's columns are used for."""

    example_noun: ClassVar[str] = "rows"

    tasks: ClassVar[tuple[TaskName, ...]] = ("classification", "regression")

    target: Target
    """The column that is predicted: the names of classes, or numbers; several columns of numbers as a list."""

    features: Annotated[ColumnNames | None, Field(min_length=1, examples=[["carat", "cut"]])] = None
    """The columns that predict it. `null`: all others. Dates (ISO 8601) become days since 1970-01-01, booleans 0 and
    1."""

    exclude: Annotated[ColumnNames, Field(examples=[["id"]])] = ()
    """Columns that are not used although `features` leaves them in, such as identifiers."""

    categorical: Annotated[ColumnNames, Field(examples=[["zip_code"]])] = ()
    """Columns of numbers, booleans or dates whose values are categories. Columns of text always are. The categories are
    those of the training rows; any other value is unknown. With the target, its integers are classes however many there
    are."""

    encoding: Literal["one_hot", "embedded"] = "one_hot"
    """`one_hot`: a column of 0 and 1 per category, all 0 if it is unknown. `embedded`: the index of the category, 0 if
    it is unknown, for networks that learn a vector per category."""

    missing: Literal["error", "impute", "drop"] = "error"
    """What happens where a feature has no value. `impute`: a number becomes the mean of the training rows, a category
    unknown. `drop`: the row is dropped. With both, rows without a target, weight, group or split are dropped. The
    manifest lists dropped rows."""

    missing_values: Annotated[tuple[str, ...], AsTuple, Distinct, Field(examples=[["NA", "-999"]])] = (
        *("NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA"),
    )
    """Text that means no value, besides an empty field, exactly as the file has it: `-999` is not `-999.0`. In Parquet,
    nulls, NaN and empty text mean it instead."""

    target_transform: Literal["none", "log", "standardize"] = "none"
    """`log`: the natural logarithm of a positive number, minus its mean over the training rows, is predicted.
    `standardize`: the number minus their mean, divided by their standard deviation; RMSE and MAE are in the original
    unit, but of several targets in standard deviations."""

    weight: Annotated[str | None, Field(min_length=1, examples=["weight"])] = None
    """Column with the weights of the rows in the loss and in all metrics, positive numbers."""

    group_column: Annotated[str | None, Field(min_length=1, examples=["patient"])] = None
    """Column with the groups of rows that stay on one side of the split, such as the measurements of one patient; it is
    no feature."""

    @property
    def target_name(self) -> str:
        return ", ".join(f"log({name})" if self.transform == "log" else name for name in self.target)

    @property
    def standardizes_target(self) -> bool:
        return self.transform == "standardize"

    @property
    def transform(self) -> Literal["none", "log", "standardize"]:
        """The transformation of the target."""
        return self.target_transform

    @property
    def is_weighted(self) -> bool:
        return self.weight is not None

    @property
    def other_columns(self) -> dict[str, str]:
        """The columns that are neither target nor features, by the key that names them."""
        keys = {"weight": self.weight, "group_column": self.group_column}
        return {key: column for key, column in keys.items() if column is not None}

    @model_validator(mode="after")
    def _columns_have_one_use(self) -> Self:
        uses = dict.fromkeys(self.target, "target")
        for key, column in self.other_columns.items():
            if column in uses:
                raise cross_field_error(key, f"`{column}` is already data.{uses[column]}; name another column")
            uses[column] = key
        for key in ("features", "exclude", "categorical"):
            for column in getattr(self, key) or ():
                if key == "categorical" and column in self.target:  # confirms that its integers are classes
                    continue
                if column in uses:
                    raise cross_field_error(key, f"`{column}` is data.{uses[column]}; leave it out here")
        for column in self.features or ():
            if column in self.exclude:
                raise cross_field_error("exclude", f"`{column}` is in data.features; remove it from one of them")
        for column in self.categorical:
            if column in self.target:
                continue
            if column in self.exclude or (self.features and column not in self.features):
                raise cross_field_error(
                    "categorical", f"`{column}` is not one of the features; add it to data.features"
                )
        return self


class TableConfig(TableSection):
    """A table: a CSV or Parquet file with a row per example. Numbers are standardized with the mean and the standard
    deviation of the training rows; columns that are constant in these are left out."""

    may_give_split: ClassVar[bool] = True

    source: Literal["table"]
    """Where the rows come from."""

    path: Annotated[str, Field(min_length=1, examples=["data/houses.csv"])]
    """A CSV file (UTF-8, with a header line, also compressed by gzip, bzip2 or xz) or a Parquet file,
    whose columns have types: text is never taken for numbers, booleans or dates."""

    separator: Annotated[str | None, Field(min_length=1, max_length=1, examples=[";"])] = None
    """Separator of the columns of CSV. `null`: of comma, semicolon, tab and `|`, the one that the first line has most
    of."""

    split_column: Annotated[str | None, Field(min_length=1, examples=["split"])] = None
    """Column with the side of the split of each row: `train`, `validation` (or `val`, `valid`, `dev`) or `test`."""

    validation_path: Annotated[str | None, Field(min_length=1, examples=["data/validation.csv"])] = None
    """File with the validation rows, if `path` has none; the columns are those of `path`, in any order."""

    test_path: Annotated[str | None, Field(min_length=1, examples=["data/test.csv"])] = None
    """File with the test rows, if `path` has none."""

    @property
    def files(self) -> dict[str, str]:
        paths = {"path": self.path, "validation_path": self.validation_path, "test_path": self.test_path}
        return {key: path for key, path in paths.items() if path is not None}

    @property
    def other_columns(self) -> dict[str, str]:
        return {**super().other_columns, **({"split_column": self.split_column} if self.split_column else {})}

    @model_validator(mode="after")
    def _split_is_given_once(self) -> Self:
        for key in ("validation_path", "test_path"):
            if self.split_column and getattr(self, key):
                raise cross_field_error(key, "cannot be set beside data.split_column; remove one of them")
        return self


class DiamondsConfig(TableSection):
    """The prices of 53,940 diamonds (Wickham 2016), a table that plotnine ships: `carat`, `depth`, `table`, `x`, `y`,
    `z`, `price` (US dollars), and the categories `cut`, `color` and `clarity`."""

    tasks: ClassVar[tuple[TaskName, ...]] = ("regression", "classification")

    source: Literal["diamonds"]
    """Where the rows come from."""

    target: Target = ("price",)
    """The column that is predicted: `price` by regression, or one of the categories by classification."""

    target_transform: Literal["none", "log", "standardize"] | None = None  # type: ignore[assignment]
    """As for `table`. `null`: `log` for `price`, otherwise `none`."""

    @property
    def transform(self) -> Literal["none", "log", "standardize"]:
        """The transformation of the target."""
        return self.target_transform or ("log" if self.target == ("price",) else "none")

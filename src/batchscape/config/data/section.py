"""What the sections of all data sources share: the split, and what the rest of the library asks of a section."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from batchscape.config.base import FromText, Section, Seed, cross_field_error


class DataSize(NamedTuple):
    """Size of a data source before it is loaded; None if unknown."""

    images: int | None
    side: int | None
    """The shorter side of the images in pixels."""


SPLIT_KEYS = ("validation_fraction", "test_fraction", "split", "split_seed", "stratify")


TaskName = Literal["classification", "regression", "language_model"]


def held_out_count(count: int, fraction: float) -> int:
    """Return the number of examples that a fraction of `count` holds out for validation or testing."""
    return round(count * fraction)


class DataSection(Section):
    """What all sources share: the split."""

    selector: ClassVar[str] = "source"

    source: str

    tasks: ClassVar[tuple[TaskName, ...]] = ("classification",)
    """The tasks whose targets the source can give; the first one is the default."""

    example_noun: ClassVar[str] = "examples"
    """What the report calls the examples, such as `images`."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, examples=[0.2]), FromText] = 0.2
    """Share of the examples held out for validation: they choose the best weights and settings."""

    test_fraction: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.1]), FromText] = 0.0
    """Share of the examples held out for testing: they choose nothing, and the best weights are tested on them. 0: no
    test side, unless the source gives one."""

    split: Literal["random", "first"] = "random"
    """`random`: shuffled with `split_seed`. `first`: the first examples of the source train, those that follow
    validate, and the last ones test."""

    split_seed: Seed = 0
    """Seed of the split, which all runs of a study share."""

    stratify: bool = False
    """Spread the classes, or the tenths of a numeric target, evenly over the sides. Only with `split: random`."""

    may_give_split: ClassVar[bool] = False
    """Whether the source itself may give the split, such as by folders, in place of the keys of the split."""

    @model_validator(mode="after")
    def _split_is_possible(self) -> Self:
        if self.stratify and self.split == "first":
            raise cross_field_error("stratify", "needs `split: random`; remove one of the two keys")
        if self.validation_fraction + self.test_fraction >= 1:
            raise cross_field_error(
                "test_fraction",
                f"{self.test_fraction:g} and data.validation_fraction, {self.validation_fraction:g}, leave nothing for "
                "training; lower one of them",
            )
        return self

    @property
    def known_size(self) -> DataSize:
        return DataSize(None, None)

    @property
    def token_unit(self) -> str:
        """What a token is, as `DataSpec.token_unit`; empty if the section does not say, or inputs are no tokens."""
        return ""

    @property
    def target_name(self) -> str:
        """What a numeric target is, as `DataSpec.target_name`; empty if the section does not say."""
        return ""

    @property
    def standardizes_target(self) -> bool:
        """Whether losses are in standard deviations of the target, so that their unit is not that of `target_name`."""
        return False

    @property
    def is_weighted(self) -> bool:
        """Whether the section gives the examples weights."""
        return False

    @property
    def split_keys(self) -> list[str]:
        """The keys of the split that the study file sets."""
        return [key for key in SPLIT_KEYS if key in self.model_fields_set]

    @property
    def unset_split_keys(self) -> list[str]:
        """The keys of the split that the study file leaves to a source that may give it, or to the defaults."""
        return [key for key in SPLIT_KEYS if key not in self.split_keys] if self.may_give_split else []

    @model_serializer(mode="wrap")
    def _without_unset_split(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave unset keys out: a job must know whether the study file sets a split, as the source may give one."""
        return {key: value for key, value in handler(self).items() if key not in self.unset_split_keys}

    @property
    def files(self) -> dict[str, str]:
        """The files and folders that are read, by the key that names them."""
        return {}

    @property
    def files_beside(self) -> tuple[str, ...]:
        """Files that are read as well if they exist, though no key names them."""
        return ()

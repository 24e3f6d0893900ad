"""What an example of a dataset is, and which batches its training side can fill."""

from dataclasses import dataclass, field
from typing import Any, Literal, Self

TRAIN, VALIDATION, TEST = SIDES = ("train", "validation", "test")
# The words that Hugging Face's datasets recognizes, and more from public sets; `pred` contains unlabeled images.
SIDE_OF_WORD = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validate": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
    "evaluation": TEST,
    "holdout": TEST,
    "pred": TEST,
}


@dataclass(frozen=True)
class DataSpec:
    """What the examples of a dataset are, as the network and the task see them.

    Attributes:
        inputs: `images`: (channels, height, width); uint8 is divided by 255, floats are not scaled. `numbers`: floats
            of any shape. `tokens`: integers below `vocabulary`, (length,). `columns`: a pair of numbers, (columns,),
            and category indices, (len(categories),).
        shape: Shape of one input; of `columns`, that of its numbers.
        targets: `class`: the index of one of `classes`. `numbers`: floats of `target_shape`. `next_token`: the token
            that follows, at each position.
        classes: Names of the classes; empty unless targets are classes.
        target_shape: Shape of the target of one example.
        vocabulary: Number of different tokens; 0 unless inputs are tokens.
        token_unit: What a token is: `byte`, `character` or `token`.
        categories: How many indices each categorical column of `columns` has; index 0 is any unknown value.
        target_name: What the target is, with its unit or transformation, such as `log(price)`; empty if unknown.
        target_scale: What one unit of a numeric target is in its original unit: its standard deviation if it is
            standardized, otherwise 1.
        target_variance: Variance of the numeric targets of each side, by the name of the side, in the unit of the
            stored targets, weighted like the loss; of several targets their mean; for R².
    """

    inputs: Literal["images", "numbers", "tokens", "columns"]
    shape: tuple[int, ...]
    targets: Literal["class", "numbers", "next_token"]
    classes: tuple[str, ...] = ()
    target_shape: tuple[int, ...] = ()
    vocabulary: int = 0
    token_unit: str = ""
    categories: tuple[int, ...] = ()
    target_name: str = ""
    target_scale: float = 1.0
    target_variance: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the spec that `dataclasses.asdict` and JSON have made a mapping with lists of."""
        arguments: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**arguments)


def describe_large_batch(batch_size: int, training: int, validation: int) -> str | None:
    """Return why a batch size is too large for the data, and how to fix it; None if it is not.

    Args:
        batch_size: The batch size.
        training: Number of training examples.
        validation: Number of validation examples.
    """
    if batch_size <= training:
        return None
    or_lower = " or lower data.validation_fraction" if batch_size < training + validation else ""
    return f"grid.batch_sizes: {batch_size} is more than the {training} training examples; remove it{or_lower}"

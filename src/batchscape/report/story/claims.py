"""Which claims of the literature hold in this study."""

from batchscape.report.story.chapter import Caption, Chapter
from batchscape.report.story.papers import CHANG, KESKAR

CHAPTER = Chapter(
    "claims",
    "The claims",
    "What the literature says of the batch size, tested on this study's runs: runs of one seed share their initial "
    "weights and are compared with each other. A claim is supported or refuted if the 95 % interval of the effect lies "
    "on one side of no effect, and else undecided.",
    {
        "claims": Caption(
            "Which claims hold here",
            "The effect behind each claim, the mean over seeds of a paired comparison, with its 95 % interval.",
            "The line of no effect divides what would support a claim from what would refute it. An interval that "
            "crosses it decides nothing; the table says how many seeds might.",
            "A refuted claim is no mistake: these are results of other models and data. But look first whether the "
            "runs had time to converge and whether the learning rates suit them.",
            (CHANG, KESKAR),
        ),
    },
)

"""Which claims of the literature hold in this study."""

from batchscape.report.chapters.chapter import Caption, Chapter
from batchscape.report.chapters.papers import CHANG, KESKAR

CHAPTER = Chapter(
    "claims",
    "The claims",
    "What the original study and its sources say of the batch size, tested on this study's runs: each seed gives one "
    "ratio, for its runs share their initial weights. A claim is supported or refuted if the 95 % interval of the "
    "ratio over seeds lies on one side of 1, and else undecided. Among so many claims a chance verdict or two is to be "
    "expected.",
    {
        "claims": Caption(
            "Which claims hold here",
            "The ratio behind each claim, the geometric mean over seeds, with its 95 % interval on a logarithmic axis.",
            "The line at 1 is no difference, the shaded side is the one that is claimed. An interval that crosses the "
            "line decides nothing; its sentence says how many seeds might. One seed gives no interval.",
            "A refuted claim is no mistake: these are results of other models and data. But look first whether the "
            "runs had time to converge and whether the learning rates suit them.",
            (CHANG, KESKAR),
        ),
    },
)

"""The captions of all figures, in the order of the report.

Captions are defined here only: `report.html` and Snakemake's report both use them. Every figure of
`batchscape.study.registry` needs a caption in one of the chapters. Texts must be valid reStructuredText without markup,
because Snakemake parses its captions as such.
"""

from batchscape.report.chapters import beyond, claims, fixed_rate, high_rate, loss_surface, rate_search, scaled_rate
from batchscape.report.chapters.chapter import Caption, Chapter

CHAPTERS: tuple[Chapter, ...] = (
    claims.CHAPTER,
    fixed_rate.CHAPTER,
    loss_surface.CHAPTER,
    scaled_rate.CHAPTER,
    high_rate.CHAPTER,
    rate_search.CHAPTER,
    beyond.CHAPTER,
)

CAPTIONS: dict[str, Caption] = {name: caption for chapter in CHAPTERS for name, caption in chapter.figures.items()}

# Numbered, because Snakemake's report sorts categories by name; from 2, because the page starts with the answer.
CATEGORIES: dict[str, str] = {
    name: f"{number}. {chapter.title}" for number, chapter in enumerate(CHAPTERS, 2) for name in chapter.figures
}

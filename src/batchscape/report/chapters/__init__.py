"""What each figure shows and how to read it, in the order in which a report tells it.

The one place where captions stand. `report.html` and Snakemake's own report both take them from here; a figure of
`batchscape.study.registry` needs a caption in one of the chapters. Texts are plain, and valid reStructuredText, because
Snakemake's captions are that.
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

# Numbered, for Snakemake's report sorts its categories by name; from 2, as in the page, where the answer is first.
CATEGORIES: dict[str, str] = {
    name: f"{number}. {chapter.title}" for number, chapter in enumerate(CHAPTERS, 2) for name in chapter.figures
}

"""The documentation as a site: `make site`. Its pages are the Markdown files of the repository, at the same paths."""

import shutil
import tomllib
from pathlib import Path

from pygments.lexers.python import PythonLexer
from sphinx.application import Sphinx

PROJECT = Path(__file__).parents[1]
# The pages of the sidebar. They are named here, because a list in README.md would be visible on GitHub.
NAVIGATION = {
    "Using Batchscape": ["usage", "recipe", "data", "custom-code", "lightning", "tracking", "troubleshooting"],
    "Where it runs": ["cluster", "executors", "performance"],
    "Reference": ["config", "outputs", "glossary", "/config/README"],
    "Example studies": [
        *("studies/digits", "studies/fashion-mnist", "studies/diamonds", "studies/python-docs"),
        *("studies/python-docs-adamw", "original-study"),
    ],
    "Development": ["architecture", "/CONTRIBUTING", "/CHANGELOG"],
}

project = "Batchscape"
release = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md", "docs/*.md", "docs/studies/*.md"),
]
exclude_patterns = [".*", "build", "data", "dist", "downloads", "results", "src", "tests", "workflow"]  # not searched

# Anchors like those of GitHub, for headings of all levels.
myst_heading_anchors = 6

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_copyright = False


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the pages of the sidebar to the text of the home page."""
    if page == app.config.root_doc:
        source[0] += "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
            + "\n".join(name if name.startswith("/") else f"docs/{name}" for name in names)
            + "\n```\n"
            for caption, names in NAVIGATION.items()
        )


def copy_home_page(app: Sphinx, error: Exception | None) -> None:
    """Copy the home page to the address of the folder."""
    if error is None and app.builder.format == "html":
        shutil.copyfile(app.outdir / f"{app.config.root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Register both, and the language of code blocks that Sphinx does not know but GitHub does."""
    app.add_lexer("snakemake", PythonLexer)
    app.connect("source-read", add_navigation)
    app.connect("build-finished", copy_home_page)

"""Snakemake's own report of the finished smoke study, made offline: every figure with caption and category."""

import os
import re
import zipfile

import pytest

from batchscape.report.chapters import CAPTIONS, CATEGORIES
from batchscape.study.registry import FIGURES, TABLES
from tests.helpers.checkout import Checkout

pytestmark = pytest.mark.slow


def snakemake_report(finished: Checkout, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the report without network access; return its page."""
    for scheme in ("http", "https"):
        monkeypatch.setitem(os.environ, f"{scheme}_proxy", "http://127.0.0.1:9")
    path = f"results/smoke/{name}"
    done = finished.snakemake("--configfile", "config/smoke.yaml", "--report", path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "downloading" not in done.stdout
    if not name.endswith(".zip"):
        return (finished.path / path).read_text()
    with zipfile.ZipFile(finished.path / path) as archive:
        assert {f"{figure}.png" for figure in FIGURES} <= {entry.rpartition("/")[2] for entry in archive.namelist()}
        return archive.read(next(entry for entry in archive.namelist() if entry.endswith("report.html"))).decode()


@pytest.mark.parametrize("name", ["snakemake-report.html", "snakemake-report.zip"])
def test_every_figure_and_table_has_caption_and_category(
    finished: Checkout, name: str, monkeypatch: pytest.MonkeyPatch
):
    page = snakemake_report(finished, name, monkeypatch)
    for figure in FIGURES:
        assert f'"results/smoke/figures/{figure}.png"' in page
        assert CATEGORIES[figure] in page
        assert f'"labels": {{"figure": "{CAPTIONS[figure].title}"}}' in page
    assert page.count("How to read it.") == len(FIGURES)
    for table in TABLES:
        assert f'"labels": {{"table": "{table}"}}' in page
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="https?:', page)

"""The pages name only what exists: links, files, modules, tables, and the tree of the package."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from snakemake.cli import get_argument_parser

from batchscape.study.registry import TABLES
from batchscape.study.study import Study
from tests.helpers.checkout import PROJECT

PACKAGE = PROJECT / "src" / "batchscape"
PACKAGES = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")] + sorted(
    (PROJECT / "docs").rglob("*.md")
)
TO_BE_WRITTEN = {"config/mine.yaml", "src/batchscape/analysis/gradient_norm.py"}  # by the reader of a page


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it: a link, an anchor or an image that does not exist is an error."""
    folder = tmp_path_factory.mktemp("site")
    recipe = (PROJECT / "Makefile").read_text().partition("\nsite:")[2].splitlines()[1]
    options = recipe.partition("-m sphinx ")[2].replace("build/site", str(folder)).split()
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "--doctree-dir", str(folder / "doctrees")],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_site_and_in_its_sidebar(site: Path):
    home = (site / "index.html").read_text()
    sidebar = home.partition('class="sidebar-tree"')[2].partition("</aside>")[0]
    for page in [*PAGES, PROJECT / "CHANGELOG.md"]:
        address = str(page.relative_to(PROJECT).with_suffix(".html"))
        assert (site / address).exists()
        assert f'href="{address}"' in sidebar or address == "README.html"


def test_the_site_searches_and_needs_no_other_server(site: Path):
    index = (site / "searchindex.js").read_text()
    assert '"equival"' in index  # words are stemmed
    for page in site.rglob("*.html"):
        assert not re.search(r'<(script|link|img|iframe)[^>]+(src|href)="(https?:)?//', page.read_text()), page


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_modules_exist(page: Path):
    text = page.read_text()
    paths = set(re.findall(r"\b(?:src|workflow|tests|docs|config|profiles|envs)(?:/\w+)+\.[a-z]+\b", text))
    paths |= set(re.findall(rf"`((?:{'|'.join(PACKAGES)})/[\w/]*\.py)`", text))
    assert {path for path in paths if not (PROJECT / path).exists() and not (PACKAGE / path).exists()} <= TO_BE_WRITTEN
    for module, attribute in re.findall(r"^from (batchscape[.\w]*) import (\w+)$", text, re.MULTILINE):
        source = (PROJECT / "src" / f"{module.replace('.', '/')}.py").read_text()
        assert re.search(rf"^(?:def|class) {attribute}\b|^{attribute} =", source, re.MULTILINE), f"{module}.{attribute}"


def test_the_tables_of_the_readme_exist():
    row = next(line for line in (PROJECT / "README.md").read_text().splitlines() if line.startswith("| `tables/"))
    registered = re.findall(r"tables/(\w+)", (PACKAGE / "study" / "registry.py").read_text())
    assert set(re.findall(r"`(\w+)`", row)) <= {*TABLES, *registered}


def test_the_architecture_page_shows_every_module():
    page = (PROJECT / "docs" / "architecture.md").read_text()
    tree = page.partition("\nsrc/batchscape/\n")[2].partition("\ntests/")[0]
    entries = re.sub(r"\n {20,}", " ", tree).splitlines()[1:]  # a long list continues on the next line
    shown = {package.strip(): modules for package, _, modules in (entry.partition("/ ") for entry in entries)}
    for package in PACKAGES:
        modules = {file.stem for file in (PACKAGE / package).glob("*.py")} - {"__init__"}
        named = set(re.findall(r"\w+", re.split("[:;] ", shown[package])[-1]))
        assert named <= modules if "one module per" in shown[package] else named == modules, package


def test_the_study_of_the_readme_is_valid():
    block = re.search(r"```yaml\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)[1]
    Study.from_mapping(YAML(typ="safe", pure=True).load(block), "README.md")


def commands_of(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `snakemake` of a page, in blocks and in the text, without placeholders."""
    text = page.read_text()
    blocks = "\n".join(re.findall(r"^ *```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    for command in [*blocks.splitlines(), *re.findall(r"`(snakemake [^`]+)`", text)]:
        match = re.match(r"\s*(?:\w+=\S+ )*snakemake (.*)", command)
        if match:
            yield [word for word in shlex.split(match[1].partition(" >")[0], comments=True) if word != "…"]


def test_snakemake_accepts_the_commands_of_the_pages_with_one_study_file_each():
    parser = get_argument_parser()
    number = 0
    for page in PAGES:
        for arguments in commands_of(page):
            if "kubernetes" in arguments:  # its plugin is not installed
                continue
            parsed = parser.parse_args(arguments)  # an error of it ends the test
            assert len(parsed.configfile or []) <= 1, arguments
            number += 1
    assert number > 40


def test_quoted_messages_are_those_of_the_code():
    """Each part of a quote between its `…` is text of the code; rows on messages of other programs name the program."""
    files = [PROJECT / "Snakefile", PROJECT / "Makefile", *PACKAGE.rglob("*.py")]
    files += [file for kind in ("*.smk", "*.py") for file in (PROJECT / "workflow").rglob(kind)]
    code = "\n".join(file.read_text() for file in files)
    code = re.sub(r"\{[^{}]*\}|%[\d.,]*[a-z]", "…", re.sub(r'"\s*\n\s*f?"', "", code))  # joined strings, without values
    for row in re.findall(r"^\| (.*?) \| ", (PROJECT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE):
        if "(Snakemake)" not in row:
            for quote in re.findall(r"`` (.+?) ``|`([^`]+)`", row):
                parts = re.split(r"…|FILE|KEY|\b\d+\b|: ", "".join(quote))
                assert [part for part in parts if part.strip(" :,") and part.strip(" :") not in code] == [], row

"""The report of the smoke study in a browser: on a phone, on a screen and in print, with and without scripts."""

import base64
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from batchscape.report.interactive.views import VIEWS
from batchscape.report.page import render
from batchscape.study.measures import describe_measures
from batchscape.study.registry import FIGURES
from batchscape.study.study import Study
from tests.helpers.checkout import Checkout
from tests.helpers.measures import TASKS
from tests.helpers.scenarios import add_tables, make_analyses, make_study

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="needs chromium and chromedriver: apt-get install chromium-driver"
    ),
]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    # A landscape is drawn by WebGL, which a machine without a GPU computes in software.
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
TIMEOUT = 120  # seconds, for a busy machine


def start_browser(profile: Path) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(TIMEOUT)
    return driver


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = start_browser(tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


@pytest.fixture
def without_scripts(browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """A browser in which pages run no scripts, though tests do."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield browser
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.fixture(scope="module")
def page(finished: Checkout) -> Path:
    return finished.path / "results" / "smoke" / "report.html"


def open_page(browser: webdriver.Chrome, page: Path, width: int) -> list[str]:
    """Open a page at a screen width; return the addresses that it requested."""
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get_log("performance")  # discard requests of an earlier page
    browser.get(page.as_uri())
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [address for address in requested if not address.startswith("chrome://")]  # the browser's own first page


def write_page(
    folder: Path, study: Study, frames: dict[str, pd.DataFrame], figures: Sequence[str], task: str = "classification"
) -> Path:
    """Write the report of a synthetic study, with empty pictures of these figures."""
    parts = {kind: {} for kind in ("tables", "analysis")}
    for name, frame in frames.items():
        kind, _, short = name.partition("/")
        parts[kind][short] = frame
    spec = {**json.loads(study.specs.report), "measures": describe_measures(*TASKS[task])}
    page = folder / "report.html"
    page.write_text(
        render(spec, dict.fromkeys(figures, b""), parts["tables"], [], analyses=parts["analysis"]), encoding="utf-8"
    )
    return page


@pytest.mark.parametrize("width", [400, 1200])
def test_every_figure_is_visible_and_fits_the_screen(browser: webdriver.Chrome, page: Path, width: int):
    requested = open_page(browser, page, width)
    assert requested[0] == page.as_uri()
    assert all(address.startswith("data:") for address in requested[1:])

    for details in browser.find_elements("css selector", "details"):
        browser.execute_script("arguments[0].open = true", details)
    assert browser.execute_script("return window.innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width

    images = browser.execute_script(
        "return [...document.images]"
        ".map(i => [i.complete, i.naturalWidth, i.clientWidth, i.getBoundingClientRect().right])"
    )
    assert len(images) == len(FIGURES)
    for complete, natural, shown, right in images:
        assert complete
        assert natural > 500
        assert 0.6 * min(width, natural, 864) < shown <= width
        assert right <= width


@pytest.mark.parametrize("width", [390, 1200])
def test_first_tables_fit_the_screen(browser: webdriver.Chrome, page: Path, width: int):
    open_page(browser, page, width)
    cells = browser.execute_script(
        "return [...document.querySelectorAll('#answer tbody tr:not([hidden]) td')].map(cell => {"
        "const {left, right} = cell.getBoundingClientRect();"
        "return [left, right, cell.scrollWidth - cell.clientWidth]})"
    )
    assert len(cells) > 8
    assert all(left >= 0 and right <= width and hidden <= 0 for left, right, hidden in cells)


def test_internal_links_have_targets(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    missing = browser.execute_script(
        "return [...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))"
        ".filter(id => !document.getElementById(id))"
    )
    assert missing == []


def test_page_prints_with_all_figures(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    content = base64.b64decode(printed["data"])
    assert content.startswith(b"%PDF")
    assert content.count(b"/Subtype /Image") >= len(FIGURES)


# Tables.


def cells(browser: webdriver.Chrome, table: WebElement, column: int) -> list[str]:
    """Return the visible cells of a column, from the top."""
    return browser.execute_script(
        "return [...arguments[0].tBodies[0].rows].filter(row => row.offsetParent)"
        ".map(row => row.cells[arguments[1]].textContent)",
        table,
        column,
    )


def mean(text: str) -> float:
    return float(text.partition(" ±")[0].replace("−", "-"))


def test_table_sorts_by_the_number_and_filters_by_words_with_the_keyboard(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    table = browser.find_element("css selector", "#answer table")
    headings = table.find_elements("css selector", "thead th")
    column = next(index for index, each in enumerate(headings) if each.text.startswith("CPU time to best epoch"))
    before = cells(browser, table, column)
    assert list(map(mean, before)) != sorted(map(mean, before))
    shown = len(before)
    browser.find_element("css selector", "#answer .controls button").click()
    complete = cells(browser, table, column)
    assert len(complete) > shown

    button = headings[column].find_element("css selector", "button")
    button.send_keys(Keys.ENTER)
    assert list(map(mean, cells(browser, table, column))) == sorted(map(mean, complete))
    assert headings[column].get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.SPACE)
    assert list(map(mean, cells(browser, table, column))) == sorted(map(mean, complete), reverse=True)
    assert headings[column].get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.ENTER)
    assert cells(browser, table, column) == complete

    names = cells(browser, table, 0)
    browser.find_element("css selector", "#answer input[type=search]").send_keys("bs128 tuned")
    assert cells(browser, table, 0) == [name for name in names if "bs128" in name and "tuned" in name]
    assert "1 matching" in browser.find_element("css selector", "#answer .controls [role=status]").text


def test_missing_values_are_last_in_both_orders(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    sort = (
        "const table = document.createElement('table');"
        "table.innerHTML = '<thead><tr><th>a</th></tr></thead><tbody></tbody>';"
        "for (const text of arguments[0]) table.tBodies[0].insertRow().insertCell().textContent = text;"
        "const wide = document.createElement('div'); wide.className = 'wide'; wide.append(table);"
        "document.body.append(wide); enhanceTable(table);"
        "const read = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);"
        "table.querySelector('button').click(); const up = read();"
        "table.querySelector('button').click(); return [up, read()]"
    )
    numbers = ["10", "–", "∞", "2 × 10⁻³", "−1.5", "1,797", "0.05 ± 0.02"]
    ascending = ["−1.5", "2 × 10⁻³", "0.05 ± 0.02", "10", "1,797", "∞"]
    assert browser.execute_script(sort, numbers) == [[*ascending, "–"], [*ascending[::-1], "–"]]
    names = ["bs128", "–", "bs32", "high"]
    assert browser.execute_script(sort, names) == [["bs32", "bs128", "high", "–"], ["high", "bs128", "bs32", "–"]]


def test_filter_finds_no_text_across_cells(browser: webdriver.Chrome, tmp_path: Path):
    study = make_study([32, 64], [0.01], [0])
    frames = add_tables(study, make_analyses(study, 1, lambda _: False))
    open_page(browser, write_page(tmp_path, study, frames, []), 1200)
    find = (
        "const table = document.createElement('table');"
        "table.innerHTML = '<thead><tr><th>a<th>b</tr></thead><tbody></tbody>';"
        "for (const size of [16, 32, 64, 160, 16, 320]) {"
        "const row = table.tBodies[0].insertRow();"
        "for (const text of [size, 0.01]) row.insertCell().textContent = text;}"
        "const wide = document.createElement('div'); wide.className = 'wide'; wide.append(table);"
        "document.body.append(wide); enhanceTable(table);"
        "const filter = wide.previousElementSibling.querySelector('input');"
        "filter.value = arguments[0]; filter.dispatchEvent(new Event('input'));"
        "return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[0].textContent)"
    )
    assert browser.execute_script(find, "160") == ["160"]
    assert browser.execute_script(find, "16 0.01") == ["16", "160", "16"]


# Interactive figures.


def values_shown(browser: webdriver.Chrome, article: WebElement) -> list[list[str]]:
    """Return the rows of the table below an interactive figure."""
    article.find_element("css selector", ".values summary").send_keys(Keys.ENTER)
    WebDriverWait(browser, TIMEOUT).until(lambda _: article.find_element("css selector", ".values table"))
    return browser.execute_script(
        "return [...arguments[0].querySelectorAll('.values tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))",
        article,
    )


def explore(browser: webdriver.Chrome, name: str) -> WebElement:
    """Open the interactive counterpart of a figure with the keyboard; return its element."""
    article = browser.find_element("id", f"figure-{name}")
    article.find_element("css selector", ".explore").send_keys(Keys.ENTER)
    WebDriverWait(browser, TIMEOUT).until(
        lambda _: (
            article.find_element("css selector", ".explore").is_enabled()
            and article.find_elements("css selector", ".plot .main-svg")
        )
    )
    assert article.find_element("css selector", ".explore").get_attribute("aria-pressed") == "true"
    return article


def drawn_names(browser: webdriver.Chrome, article: WebElement) -> set[str]:
    """Return the names of what is drawn, as the reader sees them who hovers over a point."""
    names = browser.execute_script(
        "return arguments[0].querySelector('.plot').data.flatMap(trace => trace.text ?? [])", article
    )
    return {name.partition(" (±")[0] for name in names if name}


def switch(article: WebElement, group: str, label: str) -> None:
    """Press the space bar on a switch."""
    for fieldset in article.find_elements("css selector", "fieldset"):
        if fieldset.find_element("css selector", "legend").text == group:
            for each in fieldset.find_elements("css selector", "label"):
                if each.text.strip() == label:
                    each.find_element("css selector", "input").send_keys(Keys.SPACE)
                    return
    raise AssertionError(f"no switch {group}: {label}")


def requests_of(browser: webdriver.Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def test_arms_rates_and_seeds_are_switched_on_and_off(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    article = explore(browser, "curves_fixed_lr")
    fixed = {f"bs{size}-lr0.02-seed{seed}" for size in (64, 128, 256) for seed in (0, 1)}
    means = {f"mean of bs{size}-lr0.02" for size in (64, 128, 256)}
    assert drawn_names(browser, article) == fixed | means
    switch(article, "Arm", "high")
    high = {name.replace("0.02", "0.08") for name in fixed | means}
    assert drawn_names(browser, article) == fixed | means | high
    switch(article, "Arm", "fixed")
    # A run of several arms is shown if one of them is switched on.
    assert drawn_names(browser, article) == high
    switch(article, "Seed", "0")
    assert drawn_names(browser, article) == {name for name in high if not name.endswith("seed0")}
    switch(article, "Learning rate", "0.08")
    assert drawn_names(browser, article) == set()
    assert "Nothing is switched on" in article.text


def test_axes_are_linear_or_logarithmic_and_values_are_a_table(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    article = explore(browser, "curves_fixed_lr")
    kinds = "const layout = arguments[0].querySelector('.plot').layout; return [layout.xaxis.type, layout.yaxis.type]"
    assert browser.execute_script(kinds, article) == ["log", "log"]
    switch(article, "Axes", "logarithmic y")
    assert browser.execute_script(kinds, article) == ["log", "linear"]
    ranges = "return arguments[0].querySelector('.plot')._fullLayout.yaxis.range"
    low, high = browser.execute_script(ranges, article)
    article.find_element("xpath", ".//button[text()='Zoom in']").send_keys(Keys.ENTER)
    zoomed_low, zoomed_high = browser.execute_script(ranges, article)
    assert low < zoomed_low < zoomed_high < high

    article.find_element("css selector", ".values summary").send_keys(Keys.ENTER)
    table = WebDriverWait(browser, TIMEOUT).until(lambda _: article.find_element("css selector", ".values table"))
    assert int(table.get_attribute("data-total")) == 2 * (6 + 3) * 5  # losses, of runs and means, after five epochs
    assert set(cells(browser, table, 0)) < drawn_names(browser, article) | {""}


def test_only_what_has_a_place_on_the_axes_is_drawn_and_counted(browser: webdriver.Chrome, tmp_path: Path):
    study = make_study([32, 64], [0.01, 0.1], [0, 1])
    frames = add_tables(
        study, make_analyses(study, 6, lambda _: False, (), -9.0), describe_measures(*TASKS["own loss"])
    )
    page = write_page(tmp_path, study, frames, ["curves_fixed_lr", "curvature"], "own loss")
    open_page(browser, page, 1200)
    curves = explore(browser, "curves_fixed_lr")
    status = curves.find_element("css selector", ".interactive > .note")
    points = "return arguments[0].querySelectorAll('.plot .scatterlayer .point').length"
    assert browser.execute_script(points, curves) > 0
    assert status.text == "4 of 16 series of runs are shown."
    switch(curves, "Axes", "logarithmic y")
    assert status.text == "Nothing is switched on that has a value on these axes."

    # The curvature at the initial weights is at epoch 0.
    curvature = explore(browser, "curvature")
    drawn = "return arguments[0].querySelector('.plot').data.flatMap(trace => trace.x.filter(x => x !== null))"
    assert min(browser.execute_script(drawn, curvature)) == 1
    switch(curvature, "Axes", "logarithmic x")
    assert min(browser.execute_script(drawn, curvature)) == 0


def test_batch_sizes_are_exact_on_axes_and_in_values(browser: webdriver.Chrome, tmp_path: Path):
    data = {"name": "s", "data": {"source": "synthetic", "images": 100_000}, "grid": {"batch_sizes": [16384, 32768]}}
    study = Study.from_mapping(data, "s")
    frames = add_tables(study, make_analyses(study, 2, lambda _: False))
    open_page(browser, write_page(tmp_path, study, frames, ["convergence"]), 1200)
    article = explore(browser, "convergence")
    ticks = "return [...arguments[0].querySelectorAll('.plot .xtick text')].map(each => each.textContent)"
    assert set(browser.execute_script(ticks, article)) == {"16384", "32768"}
    hover = "return arguments[0].querySelector('.plot').data.flatMap(trace => trace.hovertext)"
    rows = values_shown(browser, article)
    assert {row[2] for row in rows} == {"16384", "32768"}
    assert {"16384", "32768"} < {row[3] for row in rows}  # the time to the best epoch, as a scenario has it
    assert set(browser.execute_script(hover, article)) == {row[3] for row in rows}


def test_landscape_turns_by_keyboard_and_by_dragging(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    browser.get_log("browser")
    article = explore(browser, "landscape")
    eyes = (
        "const layout = arguments[0].querySelector('.plot')._fullLayout;"
        "return ['scene', 'scene2'].map(name => layout[name]._scene.getCamera().eye)"
    )

    def turned(before: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        def moved(_: object) -> list[dict[str, float]] | None:
            now = browser.execute_script(eyes, article)
            return now if all(abs(now[each]["x"] - before[each]["x"]) > 0.05 for each in (0, 1)) else None

        return WebDriverWait(browser, TIMEOUT).until(moved)

    first = browser.execute_script(eyes, article)
    article.find_element("xpath", ".//button[text()='Turn left']").send_keys(Keys.ENTER)
    second = turned(first)
    assert second[0] == pytest.approx(second[1])  # both planes
    assert second[0]["z"] == pytest.approx(first[0]["z"])
    scene = article.find_element("css selector", "#scene canvas")
    actions = webdriver.ActionChains(browser)
    actions.move_to_element(scene).click_and_hold().move_by_offset(60, 0).move_by_offset(60, 0).release().perform()
    turned(second)
    refused = [
        entry["message"] for entry in browser.get_log("browser") if "Content Security Policy" in entry["message"]
    ]
    assert refused == []


def test_every_interactive_figure_draws_without_errors_or_requests(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    browser.get_log("browser")
    found = [article.get_attribute("id") for article in browser.find_elements("css selector", "article:has(.explore)")]
    assert {name.removeprefix("figure-") for name in found} == set(VIEWS)
    for name in VIEWS:
        article = explore(browser, name)
        assert browser.execute_script("return arguments[0].querySelector('.plot').data.length", article) > 0, name
        image = article.find_element("css selector", "img")
        assert not image.is_displayed()
        article.find_element("css selector", ".explore").send_keys(Keys.ENTER)
        assert image.is_displayed()
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert all(address.startswith(("data:", page.as_uri())) for address in requests_of(browser))


def test_static_figures_are_printed_and_shown_on_a_phone(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    article = explore(browser, "lr_effect")
    image, plot = (article.find_element("css selector", kind) for kind in ("img", ".plot"))
    assert (image.is_displayed(), plot.is_displayed()) == (False, True)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert (image.is_displayed(), plot.is_displayed()) == (True, False)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    assert base64.b64decode(printed["data"]).count(b"/Subtype /Image") >= len(FIGURES)
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    assert (image.is_displayed(), plot.is_displayed()) == (True, False)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_claims_are_folded_below_their_figure_and_printed(browser: webdriver.Chrome, page: Path):
    open_page(browser, page, 1200)
    order = browser.execute_script(
        "return [...document.querySelectorAll('#claims > article, #claims > details')].map(each => each.localName)"
    )
    assert order[0] == "article"
    assert set(order[1:]) == {"details"}
    claim = browser.find_element("css selector", "#claims .claims li")
    assert not claim.is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script("return arguments[0].getBoundingClientRect().height", claim) > 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_page_without_scripts_has_all_static_figures_and_no_buttons(without_scripts: webdriver.Chrome, page: Path):
    open_page(without_scripts, page, 1200)
    images = without_scripts.find_elements("css selector", "figure > img")
    assert len(images) == len(FIGURES)
    assert all(image.is_displayed() for image in images)
    assert without_scripts.find_elements("css selector", "button, input, select") == []
    rows = without_scripts.find_elements("css selector", "#answer section > .wide tbody tr, #answer > .wide tbody tr")
    assert [row.is_displayed() for row in rows[:8]] == [True] * 8

"""The report of the smoke study in a browser: on a phone, on a screen and in print, without network access."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from batchscape.study.registry import FIGURES
from tests.helpers.checkout import Checkout

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="needs chromium and chromedriver: apt-get install chromium-driver"
    ),
]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


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


def test_first_table_fits_on_a_screen_and_scrolls_on_a_phone(browser: webdriver.Chrome, page: Path):
    def sizes(width: int) -> tuple[int, int, str]:
        open_page(browser, page, width)
        return browser.execute_script(
            "const table = document.querySelector('#answer .wide');"
            "return [table.scrollWidth, table.clientWidth, getComputedStyle(table).overflowX]"
        )

    content, shown, _ = sizes(1200)
    assert content <= shown
    content, shown, overflow = sizes(400)
    assert (content > shown, overflow) == (True, "auto")


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

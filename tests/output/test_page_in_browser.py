"""The HTML report in a real browser: pictures load, nothing overflows, it can be read light, dark and on paper.

Needs a Chromium or Chrome on the PATH; playwright's own download is not used.
"""

import shutil
from itertools import pairwise

import numpy as np
import pytest
from output.reports import report_of

from gcnn_cli.output.html import html_report

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")

PICTURES = "[...document.images].map(i => i.complete && i.naturalWidth > 1 && i.getBoundingClientRect().width > 20)"
TOO_WIDE = """() => [...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect()
    return !e.closest('.picture') && (box.right > innerWidth + 0.5 || box.left < -0.5)
}).map(e => e.outerHTML.slice(0, 90))"""
# Of every text with the nearest opaque background behind it, by WCAG's formula; letters in pictures have dark edges.
CONTRASTS = """() => {
    const luminance = color => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor
            if (!color.endsWith(', 0)')) return color
        }
        return 'rgb(255, 255, 255)'
    }
    const texts = [...document.querySelectorAll('body *')].filter(e => !e.closest('svg') &&
        [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()))
    return texts.map(e => {
        const [a, b] = [luminance(getComputedStyle(e).color), luminance(behind(e))]
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    })
}"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def pages(phantom, tmp_path_factory):
    """Reports with three nodules and with none, by that number."""
    made = {}
    for count in (3, 0):
        positions = np.array([n.position_mm for n in phantom.nodules[:count]]).reshape(-1, 3)
        report = report_of(phantom.volume, positions, warnings=["values below -1024 HU were taken for padding"])
        made[count] = tmp_path_factory.mktemp("page") / "a b.nodules.html"
        made[count].write_bytes(html_report(report, phantom.volume))
    return made


@pytest.fixture
def open_page(browser, pages):
    """Open a report offline, at a width and in a color scheme."""
    contexts = []

    def open_at(width, scheme="light", nodules=3):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        )
        page = contexts[-1].new_page()
        page.failures = []
        page.on("console", lambda message: page.failures.append(message.text))
        page.on("requestfailed", lambda request: page.failures.append(request.url))
        page.goto(pages[nodules].as_uri())
        return page

    yield open_at
    for context in contexts:
        context.close()


@pytest.mark.parametrize("nodules", [3, 0])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_pictures_load_and_nothing_overflows(open_page, width, scheme, nodules):
    page = open_page(width, scheme, nodules)
    loaded = page.evaluate(PICTURES)
    assert len(loaded) >= 2 + 7 * nodules
    assert all(loaded)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(TOO_WIDE) == []
    assert page.failures == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_stands_out(open_page, scheme):
    contrasts = open_page(390, scheme).evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert min(contrasts) >= 4.5  # WCAG 2.2, 1.4.3


def test_dark_is_dark_and_paper_is_white(open_page):
    page = open_page(1280, "dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(20, 23, 27)"
    page.emulate_media(media="print")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert len(page.pdf(prefer_css_page_size=True)) > 10_000


def test_headings_tables_and_pictures_have_their_names(open_page):
    page = open_page(1280)
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.evaluate("[...document.images].every(i => i.alt.length > 10)")
    assert page.evaluate("[...document.querySelectorAll('th')].every(h => h.scope)")
    assert page.evaluate(
        "[...document.querySelectorAll('a')].every(a => document.querySelector(a.getAttribute('href')))"
    )
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.querySelector('table caption') !== null")


def test_the_checks_can_fail(open_page):
    page = open_page(390)
    page.evaluate("document.querySelector('h1').style.width = '500px'")
    assert page.evaluate(TOO_WIDE)
    page.evaluate("document.querySelector('h1').style.color = getComputedStyle(document.body).backgroundColor")
    assert min(page.evaluate(CONTRASTS)) < 1.1
    page.evaluate("document.images[0].src = 'data:image/png;base64,AAAA'")
    page.wait_for_timeout(200)
    assert not all(page.evaluate(PICTURES))

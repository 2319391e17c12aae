"""The page in a real browser: scans lie where the results say, keys decide, everything is readable, nothing leaves.

Needs a Chromium or Chrome on the PATH with WebGL2, which it computes without a GPU; playwright's own download is not
used.
"""

import io
import json
import shutil
from itertools import combinations

import numpy as np
import pytest
from output.test_page_in_browser import CONTRASTS, FLAGS, SCHEMES, WIDTHS
from PIL import Image
from review.results import FRAMES, session_of, some_cases
from review.test_server import serving
from scipy.ndimage import map_coordinates

from gcnn_cli.output.pictures.views import LUNG_WINDOW
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume

pytestmark = pytest.mark.slow

GRAPHICS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
TOO_WIDE = """() => [...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect()
    return box.width && !e.closest('dialog') && (box.right > innerWidth + 0.5 || box.left < -0.5)
}).map(e => e.outerHTML.slice(0, 90))"""
# Page pixel of a position on the axial slice: what the rings are drawn with.
PIXEL_OF = """async (lps) => {
    const { onTile, toRas } = await import('./rings.js')
    const viewer = window.gcnnViewer
    const tile = viewer.niivue.screenSlices.find(one => one.axCorSag === 0)
    const at = onTile(tile, toRas(lps))
    const box = viewer.canvas.getBoundingClientRect()
    const scale = viewer.canvas.width / viewer.canvas.clientWidth
    return { x: box.left + at.x / scale, y: box.top + at.y / scale, depth: at.depth, perMm: at.perMm / scale }
}"""
# Positions (LPS) that the axial slice shows in page pixels.
POSITIONS_AT = """async (pixels) => {
    const { underPixel, toLps } = await import('./rings.js')
    const viewer = window.gcnnViewer
    const box = viewer.canvas.getBoundingClientRect()
    const scale = viewer.canvas.width / viewer.canvas.clientWidth
    const tiles = viewer.niivue.screenSlices.filter(one => one.axCorSag === 0)
    return pixels.map(([x, y]) => toLps(underPixel(tiles, (x - box.left) * scale, (y - box.top) * scale).ras))
}"""
PLACE = "window.gcnnViewer.place()"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=program, args=[*flags, *GRAPHICS])
        page = running.new_page()
        if not page.evaluate("Boolean(document.createElement('canvas').getContext('webgl2'))"):
            running.close()
            pytest.skip("this browser has no WebGL2")
        page.close()
        yield running
        running.close()


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return some_cases(tmp_path_factory.mktemp("page"), tuple(FRAMES))


@pytest.fixture
def open_page(browser, cases, tmp_path):
    """Open the page on a folder of reviews; requests beside the server's own fail the test."""
    opened = []

    def open_at(width=1280, scheme="light", reader="ada", only=None, **options):
        server = serving(session_of([only] if only else cases, tmp_path, reader))
        running = server.__enter__()
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
        opened.append((context, server))
        page = context.new_page()
        page.failures = []
        page.on("console", lambda message: page.failures.append(message.text))
        page.on("pageerror", lambda error: page.failures.append(str(error)))
        page.on("requestfailed", lambda request: page.failures.append(request.url))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((running.address, "data:", "blob:")) or page.failures.append(request.url)
            ),
        )
        page.goto(running.address)
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        return page

    yield open_at
    for context, server in opened:
        context.close()
        server.__exit__(None, None, None)


def press(page, *keys):
    """Press keys and wait until their decisions are answered."""
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_selector("body:not([data-busy])")


def decisions(page):
    return page.eval_on_selector_all("#findings td:last-child", "cells => cells.map(cell => cell.textContent)")


def stored(folder, name, reader="ada"):
    return json.loads((folder / "reviews" / reader / f"{name}.json").read_text())


@pytest.mark.parametrize("kind", FRAMES)
def test_the_crosshair_stands_where_the_result_says(open_page, cases, kind):
    """In the page's numbers, in the voxel under them, in the picture itself, and where a click puts it."""
    case = next(case for case in cases if case.scan.stem == kind)
    page = open_page(only=case)
    press(page, "1")
    volume = read_volume(case.scan)
    for n, nodule in enumerate(case.report.nodules):
        page.click(f"#findings tr:nth-child({n + 1}) button")
        assert page.evaluate(PLACE) == pytest.approx(nodule.position_mm, abs=0.01)
        i, j, k = (round(value) for value in nodule.index_zyx)
        assert page.evaluate("window.gcnnViewer.value()") == volume.hu[i, j, k]
        at = page.evaluate(PIXEL_OF, list(nodule.position_mm))
        assert abs(at["depth"]) < 0.01
        assert pixels_differ(page, volume, at) < 2
        moved = Volume(np.roll(volume.hu, (1, 5, 5), axis=(0, 1, 2)), volume.to_world)
        assert pixels_differ(page, moved, at) > 10  # the check can fail
    # NiiVue's own reading of a click agrees with the places of the rings, also where a slice is tilted.
    pixel = (at["x"] + 40, at["y"] - 25)
    (expected,) = page.evaluate(POSITIONS_AT, [pixel])
    page.mouse.click(*pixel)
    assert page.evaluate(PLACE) == pytest.approx(expected, abs=0.3)
    assert page.failures == []


def pixels_differ(page, volume, at):
    """Mean difference in gray between the axial slice on the screen around a pixel and the scan's own values there."""
    page.evaluate("document.querySelector('#rings').style.visibility = 'hidden'")
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), float)
    page.evaluate("document.querySelector('#rings').style.visibility = ''")
    steps = np.round(np.arange(-7.5, 8, 1.5) * at["perMm"]).astype(int)
    pixels = np.array([(int(at["x"]) + x, int(at["y"]) + y) for x in steps for y in steps])
    places = np.array(page.evaluate(POSITIONS_AT, (pixels + 0.5).tolist()))
    inside = volume.lattice.holds(places)
    assert inside.sum() > 60
    hu = map_coordinates(volume.hu.astype(float), volume.index_zyx(places[inside]).T, order=1, mode="nearest")
    low, high = LUNG_WINDOW
    expected = np.clip((hu - low) / (high - low), 0, 1) * 255
    shown = picture[pixels[inside, 1], pixels[inside, 0]]
    return float(np.mean(np.abs(shown - expected)))


def test_keys_review_a_scan_and_every_one_of_them_is_on_the_disk(open_page, cases, tmp_path):
    page = open_page()
    name = cases[0].report.scan.source.series_uid
    press(page, "a")
    assert [action["kind"] for action in stored(tmp_path, name)["actions"]] == ["accept"]
    press(page, "n", "r")
    press(page, "n", "u", "]", "]", "[")
    assert decisions(page) == ["accepted", "rejected", "unsure"]
    assert [action["kind"] for action in stored(tmp_path, name)["actions"]] == [
        "accept", "reject", "unsure", "resize", "resize", "resize",
    ]  # fmt: skip
    place = cases[0].report.nodules[1].position_mm
    page.evaluate("lps => window.gcnnViewer.goTo(lps)", list(place))
    press(page, "p", "p")
    page.evaluate("lps => window.gcnnViewer.goTo(lps)", list(place))
    press(page, "m", "i")
    assert decisions(page) == ["accepted", "rejected", "unsure", "added"]
    last = stored(tmp_path, name)["actions"][-2:]
    assert [action["kind"] for action in last] == ["move", "add"]
    for action in last:
        assert action["position_mm"] == pytest.approx(place, abs=0.01)
    press(page, "z", "z", "y")
    assert decisions(page) == ["accepted", "rejected", "unsure"]
    press(page, "d")
    lines = (tmp_path / "annotations.csv").read_text().splitlines()
    assert [float(value) for value in lines[1].split(",")[1:4]] == pytest.approx(place, abs=0.01)
    assert len(lines) == 2
    assert page.inner_text("#finish") == "Finished"
    again = open_page()  # another day: it begins with the first scan that is not finished
    assert again.get_attribute("body", "data-ready") == "1"
    again.keyboard.press("PageUp")
    again.wait_for_selector("body[data-ready='0']")
    assert decisions(again) == ["accepted", "rejected", "unsure"]
    assert page.failures == again.failures == []


def test_the_slider_says_how_many_false_alarms_it_means(open_page):
    page = open_page()
    assert page.inner_text("#threshold-text") == "0.971: 0.25 false alarms a scan; 3 of 3 findings in this scan"
    page.fill("#threshold", "1")
    assert page.inner_text("#threshold-text") == "0.980: ≤ 0.125 false alarms a scan; 2 of 3 findings in this scan"
    assert len(decisions(page)) == 2
    page.fill("#threshold", "2")
    assert page.inner_text("#threshold-text") == "0.990: false alarms a scan unknown; 1 of 3 findings in this scan"


def test_a_measured_line_has_its_length_in_a_tilted_slice_too(open_page, cases):
    page = open_page(only=next(case for case in cases if case.scan.stem == "oblique"))
    press(page, "1", "t")
    before = page.evaluate(PLACE)
    at = page.evaluate(PIXEL_OF, before)
    pixels = [(at["x"] - 50, at["y"] + 20), (at["x"] + 70, at["y"] - 30)]
    ends = np.array(page.evaluate(POSITIONS_AT, pixels))
    page.mouse.move(*pixels[0])
    page.mouse.down()
    page.mouse.move(*pixels[1], steps=4)
    page.mouse.up()
    length = np.linalg.norm(ends[1] - ends[0])
    assert abs(ends[1, 2] - ends[0, 2]) > 1  # the slice is tilted: in the plane of the screen the line is shorter
    assert float(page.inner_text("#message").split()[0]) == pytest.approx(length, abs=0.06)
    assert page.evaluate(PLACE) == before


def test_two_readers_see_their_agreement(open_page, tmp_path):
    first = open_page()
    press(first, "a", "n", "r", "n", "r", "d")
    second = open_page(reader="bob")
    assert decisions(second) == ["", "", ""]  # nobody sees the other's decisions
    press(second, "a", "n", "a", "n", "r", "d")
    cells = second.eval_on_selector_all("#pairs td", "cells => cells.map(cell => cell.textContent)")
    assert cells == ["ada, bob", "1", "1", "1", "0.67", "0.40"]
    assert (tmp_path / "agreement.csv").exists()


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_in_view_and_readable(open_page, width):
    page = open_page(width)
    press(page, "a", "n", "r", "n", "u")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(TOO_WIDE) == []
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 40
        assert min(contrasts) >= 4.5  # WCAG 2.2, 1.4.3
        background = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(background) == {"dark": "rgb(20, 23, 27)", "light": "rgb(255, 255, 255)"}[scheme]
    canvas = page.locator("#scan").bounding_box()
    assert min(canvas["height"], canvas["width"]) > 300
    page.click("#theme")  # from auto to dark, on a light screen
    page.emulate_media(color_scheme="light")
    assert page.evaluate(background) == "rgb(20, 23, 27)"
    page.click("#theme")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    assert page.failures == []


def test_each_view_shows_the_scan(open_page):
    page = open_page()
    page.evaluate("document.querySelector('#rings').style.visibility = 'hidden'")
    pictures = {}
    for view in ("all", "axial", "coronal", "sagittal", "3d"):
        page.click(f"[data-view='{view}']")
        box = page.locator("#scan").bounding_box()
        pictures[view] = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("L"), float)
        assert (pictures[view] > 60).mean() > 0.05
        assert len(np.unique(pictures[view])) > 20
    for one, other in combinations(pictures.values(), 2):
        assert np.abs(one - other).mean() > 0.5


def test_the_buttons_do_on_a_phone_what_the_keys_do(open_page, cases, tmp_path):
    page = open_page(390)
    for name in ("Accept", "Next", "Reject", "Next", "Unsure", "Larger", "Undo", "Finish scan"):
        page.click(f"#panel >> text={name}")
        page.wait_for_selector("body:not([data-busy])")
    assert decisions(page) == ["accepted", "rejected", "unsure"]
    kinds = [action["kind"] for action in stored(tmp_path, cases[0].report.scan.source.series_uid)["actions"]]
    assert kinds == ["accept", "reject", "unsure", "finish"]


def test_a_touch_places_the_crosshair(open_page):
    page = open_page(390, has_touch=True, is_mobile=True)
    (expected,) = page.evaluate(POSITIONS_AT, [[150, 300]])
    assert page.evaluate(PLACE) != pytest.approx(expected, abs=0.5)
    finger = page.context.new_cdp_session(page)
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": 150, "y": 300}]})
    page.wait_for_timeout(80)
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert page.evaluate(PLACE) == pytest.approx(expected, abs=0.5)


def test_the_window_is_the_lungs_until_it_is_changed_and_a_double_click_brings_it_back(open_page):
    page = open_page()
    press(page, "1")
    window = "[window.gcnnViewer.niivue.volumes[0].cal_min, window.gcnnViewer.niivue.volumes[0].cal_max]"
    assert page.evaluate(window) == list(LUNG_WINDOW)
    page.select_option("#window", "soft")
    assert page.evaluate(window) == [-160, 240]
    box = page.locator("#scan").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x + 60, y - 40, steps=4)
    page.mouse.up(button="right")
    assert page.evaluate(window) != [-160, 240]
    page.mouse.dblclick(x, y)
    assert page.evaluate(window) == [-160, 240]


def test_a_page_whose_server_stopped_says_so(open_page):
    page = open_page()
    page.route("**/review/*", lambda route: route.abort())
    page.keyboard.press("a")
    page.wait_for_selector("#message:not([hidden])")
    assert "nothing is lost" in page.inner_text("#message")
    assert decisions(page) == ["", "", ""]

"""The page of a follow-up in a Chromium, at both widths, light and dark: nothing is cut off, every picture is there."""

from dataclasses import replace

import numpy as np
import pytest
from output import test_page_in_browser
from output.reports import report_of
from output.test_page_in_browser import CONTRASTS, PICTURES, SCHEMES, TOO_WIDE, WIDTHS

from gcnn_cli.followup.growth import growth
from gcnn_cli.followup.matching import Pair, Status
from gcnn_cli.followup.page import follow_page
from gcnn_cli.followup.registration import Alignment
from gcnn_cli.followup.run import Exam, FollowUp

browser = test_page_in_browser.browser


@pytest.fixture(scope="module")
def page_file(phantom, tmp_path_factory):
    """A grown, a new, a gone and a faint nodule, and a note."""
    volume = phantom.volume
    first, second, third, fourth = report_of(volume, np.array([n.position_mm for n in phantom.nodules[:4]])).nodules
    exam = Exam(volume, report_of(volume, []))
    grown = growth(first.volume_mm3, 2.5, 3 * first.volume_mm3, 2.5, 180.0)
    same = growth(fourth.volume_mm3, 2.5, fourth.volume_mm3, 2.5, 180.0)
    pairs = (
        Pair(Status.MATCHED, first, replace(first, diameter_mm=11.5), distance_mm=1.2, growth=grown),
        Pair(Status.NEW, None, second, place_mm=second.position_mm),
        Pair(Status.GONE, third, None, place_mm=third.position_mm),
        Pair(Status.MATCHED, replace(fourth, probability=0.1), fourth, distance_mm=2.0, growth=same, faint=True),
    )
    made = FollowUp(exam, exam, Alignment(np.eye(4), 0.96), pairs, 180.0, ("the scans have voxels of 1 and 2.5 mm",))
    path = tmp_path_factory.mktemp("page") / "a_to_b.follow.html"
    path.write_bytes(follow_page(made))
    return path


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_pictures_load_nothing_overflows_and_every_text_stands_out(browser, page_file, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page = context.new_page()
    failures = []
    page.on("console", lambda message: failures.append(message.text))
    page.on("requestfailed", lambda request: failures.append(request.url))
    page.goto(page_file.as_uri())
    loaded = page.evaluate(PICTURES)
    assert len(loaded) == 4 * 6
    assert all(loaded)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(TOO_WIDE) == []
    assert min(page.evaluate(CONTRASTS)) >= 4.5
    assert page.evaluate("[...document.images].every(i => i.alt.length > 10)")
    assert failures == []
    assert page.locator("circle.mark").count() == 3 * 6
    # Both dates of a nodule stand side by side.
    before, now = (page.locator("#nodule-1 .dates > div").nth(n).bounding_box() for n in (0, 1))
    assert before["x"] + before["width"] <= now["x"]
    assert before["y"] == now["y"]
    context.close()

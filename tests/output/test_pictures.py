"""The HTML page and the PNG montage, without a browser: what they hold and what they must not."""

import base64
import io
import re
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from output.reports import report_of
from PIL import Image
from scan.scans import axial, some_hu, write_series

from gcnn_cli import NOTICE
from gcnn_cli.output.html import MAX_PICTURED, html_report
from gcnn_cli.output.pictures.montage import png_montage
from gcnn_cli.output.pictures.symmetry_plot import error_plot
from gcnn_cli.output.pictures.views import STRIP
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Source, Volume

HOSTILE = Source(
    '/data/<script>alert(1)</script>/$x_1$ "a" & 肺.mhd', "metaimage", "<b>056 $\\frac{$ 肺</b>", sha256="c" * 64
)


class Elements(HTMLParser):
    """All start tags with their attributes; fails on an end tag that closes nothing."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in {"meta", "img"} and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"circle", "rect"}:
            assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def volume():
    return Volume(some_hu((12, 30, 30)) // 8 - 800, axial(), HOSTILE)


def page_of(volume, count):
    positions = volume.position_mm(np.linspace([1, 5, 5], [10, 25, 25], count)) if count else ()
    return html_report(report_of(volume, positions, warnings=["<i>odd</i> values"]), volume).decode("utf-8")


@pytest.mark.parametrize("count", [0, 3])
def test_the_page_is_whole_and_on_its_own(volume, count):
    page = page_of(volume, count)
    elements = Elements(page)
    assert not elements.of("script")
    (policy,) = [m["content"] for m in elements.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not elements.of("link")
    assert "http" not in page.replace("http-equiv=", "")
    assert "url(" not in page
    assert page.count(NOTICE) == 1
    pictures = elements.of("img")
    assert len(pictures) == 2 + sum("Slice" in p["alt"] for p in pictures) + 3 * count
    for picture in pictures:
        assert len(picture["alt"]) > 10
        kind, _, data = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).mode == "L"
    assert len(elements.of("article")) == count
    for word in ("octahedral", "b" * 64, "c" * 64, "12", "30 × 30 × 12", "0.7 × 0.8 × 2.5 mm"):
        assert word in page


def test_what_comes_from_files_is_escaped(volume):
    page = page_of(volume, 1)
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;056" in page
    assert "&lt;i&gt;odd&lt;/i&gt; values" in page


def hostile(value, mark="<img src=x onerror=alert(1)>\"'&"):
    """The same value with every text in it made hostile, however deep it lies."""
    if isinstance(value, str):
        return mark
    if isinstance(value, tuple):
        return tuple(hostile(part) for part in value)
    if is_dataclass(value):
        return replace(value, **{f.name: hostile(getattr(value, f.name)) for f in fields(value)})
    return value


def test_every_text_of_a_report_is_escaped(volume):
    report = hostile(report_of(volume, volume.position_mm(np.array([5.0, 9, 9])), warnings=["odd"]))
    report = replace(report, scan=replace(report.scan, source=replace(report.scan.source, checks=("<img",))))
    page = html_report(report, volume).decode("utf-8")
    assert "<img src=x" not in page
    # Title, heading, path, kind, series, study, frame, checksum; weights, group, sha256; device; image; warning.
    assert page.count("&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;") >= 14
    assert all(picture["src"].startswith("data:image/png") for picture in Elements(page).of("img"))


def test_the_page_explains_the_probability(volume):
    """A score is calibrated to a prior, and is neither the score in training nor the probability of cancer."""
    page = page_of(volume, 1)
    assert "balance it was trained on" not in page
    assert "Platt scaling) to the share of nodules among the candidates" in page
    assert "not the probability of cancer" in page


def test_the_page_says_that_there_is_none(volume):
    assert "No nodule at or above probability 0.5; 321 candidates were scored." in page_of(volume, 0)


def test_each_nodule_has_its_slice_and_its_image(tmp_path):
    write_series(tmp_path, some_hu((12, 30, 30)) // 8 - 800, axial())
    volume = read_volume(tmp_path)
    report = report_of(volume, volume.position_mm(np.array([[2, 5, 5], [7, 20, 20]])))
    page = html_report(report, volume).decode()
    for nodule in report.nodules:
        assert f"slice {nodule.slice}</h3>" in page
        assert f"<dd>{nodule.sop_instance_uid}</dd>" in page
    assert len(set(re.findall(r"<figcaption>slice (\d+)", page))) >= STRIP
    for secret in ("Doe", "Jane", "SECRET-7"):
        assert secret not in page


def test_hundreds_of_nodules_are_listed_and_the_first_pictured(volume):
    page = page_of(volume, MAX_PICTURED + 2)
    assert page.count("<article") == MAX_PICTURED
    assert page.count('<th scope="row">') == MAX_PICTURED + 2
    assert f"Pictures show the first {MAX_PICTURED} of {MAX_PICTURED + 2}" in page


def test_the_same_report_gives_the_same_bytes(volume):
    report = report_of(volume, volume.position_mm(np.array([5.0, 9, 9])))
    assert html_report(report, volume) == html_report(report, volume)
    assert png_montage(report, volume) == png_montage(report, volume)


@pytest.mark.parametrize("count", [0, 7, 30])
def test_the_montage_is_a_picture_that_grows_with_the_nodules(volume, count):
    positions = volume.position_mm(np.linspace([1, 5, 5], [10, 25, 25], count)) if count else ()
    picture = np.asarray(Image.open(io.BytesIO(png_montage(report_of(volume, positions), volume))).convert("RGB"))
    assert picture.shape[0] >= 600 + 200 * min(count, 5)
    assert picture.shape[1] <= 2200
    yellow = (picture[..., 0] > 200) & (picture[..., 1] > 150) & (picture[..., 2] < 120)
    assert yellow.any() == bool(count)


def test_the_symmetry_plot_draws_what_no_axis_can_hold():
    def red(errors):
        picture = np.asarray(Image.open(io.BytesIO(error_plot(errors, 1e-5, "a $ b"))).convert("RGB")).astype(int)
        return ((picture[..., 0] > 150) & (picture[..., 1] < 90)).any()

    assert not red([0.0, 1e-6, 1e-7])
    assert red([0.0, 1e-3, 1e-7])
    assert red([0.0, float("inf"), 1e-7])

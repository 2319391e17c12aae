"""Draw docs/img/report.png and docs/img/view.jpg, the HTML report and the review page, from the sample scan.

    python docs/picture.py

Needs the `test` extra and a Chromium or Chrome on the PATH. Run it when a page's look or the weights change.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).parent / "img" / "report.png"
VIEW = Path(__file__).parent / "img" / "view.jpg"
GRAPHICS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL2 without a GPU
WIDTH = 840
GAP = 16
COLORS = 128  # a palette keeps the file a third as large


def chromium() -> str:
    """Return the path of the browser."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))


def review_page(result: Path, folder: Path) -> Image.Image:
    """Return the page of `gcnn view` with some decisions."""
    command = [sys.executable, "-m", "gcnn_cli", "view", result, "--out", folder / "review", "--no-open"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as engine:
        assert server.stdout is not None
        browser = engine.chromium.launch(executable_path=chromium(), args=["--no-sandbox", *GRAPHICS])
        page = browser.new_page(viewport={"width": 1180, "height": 680}, color_scheme="dark")
        page.goto(server.stdout.readline().strip())
        page.wait_for_selector("body[data-ready]")
        for key in ("a", "n", "a", "n", "a", "n", "r", "n", "u", "n", "p"):
            page.keyboard.press(key)
            page.wait_for_selector("body:not([data-busy])")
        shot = page.screenshot()
        browser.close()
        server.terminate()
    return Image.open(io.BytesIO(shot)).convert("RGB")


def columns(page_file: Path) -> list[Image.Image]:
    """Return the page in two parts: from its top to the maps of the lungs, and from there to the first nodule's end."""
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 800}, color_scheme="light", offline=True)
        page.goto(page_file.as_uri())
        heading, nodule = (page.locator(name).bounding_box() for name in ("#nodules", "#nodule-1"))
        assert heading is not None
        assert nodule is not None
        edges = (0, heading["y"] - GAP, nodule["y"] + nodule["height"] + GAP)
        clips = [{"x": 0, "y": top, "width": WIDTH, "height": end - top} for top, end in pairwise(edges)]
        shots = [page.screenshot(full_page=True, clip=clip) for clip in clips]
        browser.close()
    return [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]


def side_by_side(parts: list[Image.Image]) -> Image.Image:
    joined = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), "white")
    for index, part in enumerate(parts):
        joined.paste(part, (index * WIDTH, 0))
    return joined


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        detect = ["detect", "sample_data/thorax_dicom", "--format", "html,json", "--out", folder]
        subprocess.run([sys.executable, "-m", "gcnn_cli", *detect], cwd=ROOT, check=True)
        drawn = side_by_side(columns(next(Path(folder).glob("*.html"))))
        review = review_page(next(Path(folder).glob("*.json")), Path(folder))
    PICTURE.parent.mkdir(exist_ok=True)
    drawn.quantize(COLORS).save(PICTURE, optimize=True)
    review.save(VIEW, quality=82, subsampling=0, optimize=True)  # a palette would lose the few colored pixels


if __name__ == "__main__":
    main()

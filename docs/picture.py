"""Draw docs/img/report.png, the picture of the HTML report in the README, from the sample scan.

    python docs/picture.py

Needs the `test` extra and a Chromium or Chrome on the PATH. Run it when the page's look or the weights change.
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
WIDTH = 840
GAP = 16
COLORS = 128  # a palette keeps the file a third as large


def columns(page_file: Path) -> list[Image.Image]:
    """Return the page in two parts: from its top to the maps of the lungs, and from there to the first nodule's end."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
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
        detect = ["detect", "sample_data/thorax_dicom", "--format", "html", "--out", folder]
        subprocess.run([sys.executable, "-m", "gcnn_cli", *detect], cwd=ROOT, check=True)
        drawn = side_by_side(columns(next(Path(folder).glob("*.html"))))
    PICTURE.parent.mkdir(exist_ok=True)
    drawn.quantize(COLORS).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()

"""Hook of MkDocs: take the README, the models' cards and what they link to into the site, from their places.

Pages link as on disk (`../models/octahedral.md`), so the links also work in a checkout and on a code host.
"""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "gcnn_cli/output/report.schema.json",
    "models/*.json",
    "models/*.md",
    "models/*.toml",
    "models/learning_curve/*.*",
    "sample_data/README.md",
    "tests/README.md",
)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files outside docs/ under their own paths, and the README as the home page."""
    readme = (ROOT / "README.md").read_text("utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    for path in sorted(path for pattern in OUTSIDE for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links of pages in docs/ that leave it start at the site's root, where `on_files` put their targets."""
    return markdown if page.file.generated_by else markdown.replace("](../", "](")

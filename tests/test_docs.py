"""The README and the pages in docs/: commands, figures, links and the generated reference are those of the code."""

import importlib.util
import re
import subprocess
import sys

import pytest

from gcnn_cli.cli import app
from gcnn_cli.cli.app import EXIT_CODES
from gcnn_cli.cohort.summary import COLUMNS as COHORT_COLUMNS
from gcnn_cli.detection.stages import Stage
from gcnn_cli.output.csv_format import RICH_COLUMNS
from gcnn_cli.output.formats import FORMATS

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FIGURE = re.compile(r"\d+\.\d+(?:e-\d+)?|\b\d{2,}\b")


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text("utf-8")


def block(text, language):
    """Return the first code block of a language."""
    return re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]


def section(text, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]


def test_the_readme_stays_short(readme):
    assert len(readme.splitlines()) <= 150


def test_the_reference_is_that_of_the_command_line(root):
    path = root / "docs" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.reference(), "stale: run python docs/reference.py"


@pytest.mark.slow
def test_the_readmes_command_prints_its_table(readme, root, tmp_path):
    install, gcnn = block(readme, "sh").split(" && .venv/bin/gcnn ")
    assert install == "python3 -m venv .venv && .venv/bin/pip install ."
    command, scan = gcnn.split()
    done = subprocess.run(
        [sys.executable, "-m", "gcnn_cli", command, root / scan], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert block(readme, "") in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thorax.nodules.csv", "thorax.nodules.json"]


@pytest.mark.slow
def test_the_lines_of_python_find_the_samples_nodules(root, monkeypatch):
    monkeypatch.chdir(root)
    names = {}
    exec(block((root / "docs" / "using.md").read_text("utf-8"), "python"), names)
    assert len(names["report"].nodules) == 9


def test_the_readmes_layers_run(readme):
    names = {}
    exec(block(readme, "python"), names)
    assert names["features"].shape == (2, 8, 16, 16, 16)


def test_the_readme_lists_every_command(readme):
    listed = re.findall(r"^\| `gcnn ([a-z-]+)", section(readme, "Commands"), re.MULTILINE)
    assert sorted(listed) == sorted(c.name or c.callback.__name__ for c in app.registered_commands)


def test_every_result_of_the_readme_stands_in_its_source(readme, root):
    rows = [line for line in section(readme, "Results").splitlines() if LINK.search(line)]
    assert len(rows) == 6
    for row in rows:
        _, question, measured, link, _ = row.split("|")
        source = (root / LINK.search(link)[1]).read_text("utf-8")
        missing = [figure for figure in FIGURE.findall(question + measured) if figure not in source]
        assert not missing, f"{row}: {missing}"


@pytest.mark.parametrize(
    ("page", "title", "names"),
    [
        ("using", "Output fields", RICH_COLUMNS),
        ("using", "Formats", FORMATS),
        ("using", "Exit codes", re.findall(r"\b(\d+) ", EXIT_CODES)),
        ("cohorts", "cohort.csv and cohort.json", COHORT_COLUMNS),
    ],
)
def test_a_table_lists_what_the_code_has(root, page, title, names):
    text = section((root / "docs" / f"{page}.md").read_text("utf-8"), re.escape(title))
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")][1:]
    listed = [name for cell in cells for name in re.findall(r"[\w-]+", re.sub(r"\(.*?\)", "", cell))]
    assert sorted(listed) == sorted(names)


def test_the_stages_of_a_cohort_are_listed_in_order(root):
    page = (root / "docs" / "cohorts.md").read_text("utf-8")
    paragraph = re.search(r"^The stages, in order: .*$", page, re.MULTILINE)[0]
    assert re.findall(r"`(\w+)`", paragraph) == list(Stage)


def test_the_tree_of_the_architecture_has_every_room(root):
    page = (root / "docs" / "architecture.md").read_text("utf-8")
    tree = re.search(r"^gcnn_cli/\n(.*?)^models/", page, re.DOTALL | re.MULTILINE)[1]
    shown = re.findall(r"^  (?:  )?([a-z_]+(?:/|\.py)) ", tree, re.MULTILINE)
    package = root / "gcnn_cli"
    rooms = {f"{path.parent.name}/" for path in package.rglob("__init__.py")} - {"gcnn_cli/"}
    assert set(shown) == rooms | {path.name for path in package.glob("*.py") if not path.name.startswith("__")}


@pytest.mark.parametrize("page", ["README.md", "docs", "models", "sample_data", "tests/README.md", "CHANGELOG.md"])
def test_links_lead_to_files(root, page):
    path = root / page
    for file in path.rglob("*.md") if path.is_dir() else [path]:
        targets = [target for target in LINK.findall(file.read_text("utf-8")) if "://" not in target]
        missing = [target for target in targets if not (file.parent / target).exists()]
        assert not missing, f"{file}: {missing}"


def test_the_site_builds_and_loads_nothing_from_elsewhere(root, tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        loaded = re.findall(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"?([^\s\">]+)", page.read_text("utf-8"))
        assert not [address for address in loaded if "://" in address or address.startswith("//")], page

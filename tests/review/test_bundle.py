"""The bundled viewer is the one that was built, stays small, and has the licenses of its parts beside it."""

import gzip
import hashlib
import json
import re
from importlib import resources

FOLDER = resources.files("gcnn_cli.review").joinpath("niivue")
# Of the unpacked script: packing differs between versions of zlib.
SHA256 = "25f98cac8561c1ccbdf7aee6c01c549a0f752306c90a51104b67717158bd3b1b"


def script():
    return gzip.decompress(FOLDER.joinpath("niivue.js.gz").read_bytes())


def versions():
    named = json.loads(FOLDER.joinpath("package.json").read_text("utf-8"))
    return named["dependencies"] | named["overrides"]


def test_the_script_is_the_one_that_was_built():
    assert hashlib.sha256(script()).hexdigest() == SHA256


def test_the_bundle_stays_small():
    assert len(FOLDER.joinpath("niivue.js.gz").read_bytes()) < 200_000


def test_every_package_in_it_has_its_license():
    texts = FOLDER.joinpath("LICENSE.txt").read_text("utf-8")
    licensed = dict(re.findall(r"^(\S+) (\d+\.\d+\.\d+) \((?:MIT|ISC|BSD-2-Clause)\)$", texts, re.MULTILINE))
    assert licensed.items() <= versions().items()
    assert {"@niivue/niivue", "gl-matrix", "nifti-reader-js", "fflate"} <= licensed.keys()
    assert texts.lower().count("copyright (c)") >= len(licensed)


def test_the_wheel_names_the_licenses(root):
    assert '"gcnn_cli/review/niivue/LICENSE.txt"' in (root / "pyproject.toml").read_text("utf-8")


def test_the_page_loads_nothing_from_elsewhere():
    page = resources.files("gcnn_cli.review").joinpath("page")
    for file in page.iterdir():
        text = file.read_text("utf-8")
        assert "//" not in re.sub(r"(^|\s)//.*", "", text, flags=re.MULTILINE), file

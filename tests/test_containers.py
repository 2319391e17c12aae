"""The containers take what the package takes: the same PyTorch, only what is in the build, no rights."""

import re
import tomllib

import pytest


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_a_container_is_that_of_the_package(root, name):
    text = (root / "containers" / name).read_text("utf-8")
    with (root / "pyproject.toml").open("rb") as file:
        wanted = next(d for d in tomllib.load(file)["project"]["dependencies"] if d.startswith("torch"))
    assert f'"{wanted}"' in text
    stages = re.findall(r"^FROM (\S+)( AS build)?$", text, re.MULTILINE)
    assert [bool(build) for _, build in stages] == [True, False]
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER gcnn$", last, re.MULTILINE)
    assert "pip install" not in last  # no network and no cache in what is run
    copied = {word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    copied -= {"--from=build", "/opt/gcnn"}
    kept = set(re.findall(r"^!(.+)$", (root / ".dockerignore").read_text("utf-8"), re.MULTILINE))
    assert copied == kept
    assert all((root / path).exists() for path in copied)

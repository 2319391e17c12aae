"""CSV, TOML, JSON and weights files with values of the wrong kind, size and number."""

import json
import struct
from random import Random
from typing import Any

from fuzzing.plain_mutators import spoil_bytes, spoil_lines
from safetensors.torch import load

from gcnn_cli.network.weights import tensors_sha256

_JSON = [
    None, True, False, 0, -1, 1, 2, 7, 0.5, -0.5, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**63, 10**30,
    10**400, "", "x", "two\nlines", "\x1b[2J", "\ud800", "O", "\u202e", [], [1], [1, 2, 3], [0, 0, 0], {}, {"a": 1},
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[[]]],
]  # fmt: skip
_TOML = """
0 | -1 | 1 | nan | inf | -inf | 1e308 | 0.5 | 2.5 | true | "x" | "O" | "p4" | "a\\nb" | [] | [1] | ["a"] | [[1]] | [1.5]
| [0] | {} | {a = 1} | 1979-05-27 | [9999999999] | 9999999999999999999999999
"""
_TOML_VALUES = [value.strip() for value in _TOML.split("|")] + ["9" * 5000]
_DEEP = 100_000


def spoil_csv(content: bytes, random: Random) -> bytes:
    if random.random() < 0.1:
        return content + random.choice((b"a" * 200_000, b'"' + b"x" * 1000, b"\xff\xfe", b"a,b\r\rc", b"\n" * 5000))
    return spoil_lines(content, random)


def spoil_toml(content: bytes, random: Random) -> bytes:
    if random.random() < 0.1:
        return content + random.choice(
            (
                b"x = " + b"[" * _DEEP,
                b"[train]\n",
                b"[other]\na = 1\n",
                b"[a.b.c]\n",
                b"[network.fields]\n",
                b"\n[[split]]",
            )
        )
    if random.random() < 0.3:
        return spoil_lines(content, random, _TOML_VALUES)
    lines = content.decode("latin-1").split("\n")
    settings = [n for n, line in enumerate(lines) if " = " in line]
    if settings:
        at = random.choice(settings)
        lines[at] = lines[at].partition(" = ")[0] + " = " + random.choice(_TOML_VALUES)
    return "\n".join(lines).encode("latin-1")


def spoil_json(content: bytes, random: Random) -> bytes:
    if random.random() < 0.05:
        return random.choice((b"[" * _DEEP, b'{"a":' * _DEEP, b"9" * 5000, b"null", b'"x"', b"[]", b"{}"))
    try:
        return json.dumps(_spoil_value(json.loads(content), random)).encode()
    except (ValueError, RecursionError):  # several documents, or damaged before
        return spoil_lines(content, random, [json.dumps(value) for value in _JSON])


def _spoil_value(value: Any, random: Random, depth: int = 0) -> Any:
    """A value of the tree replaced, removed or put one level deeper."""
    if isinstance(value, dict | list) and value and (depth == 0 or random.random() < 0.8):
        at = random.choice(sorted(value)) if isinstance(value, dict) else random.randrange(len(value))
        changed = value.copy()
        if random.random() < 0.1:
            del changed[at]
        else:
            changed[at] = _spoil_value(value[at], random, depth + 1)
        return changed
    return random.choice((*_JSON, [value], {"a": value}, str(value)))


def spoil_weights(content: bytes, random: Random) -> bytes:
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]
        inner = json.loads(header["__metadata__"]["gcnn"])
    except (struct.error, ValueError, KeyError, TypeError, RecursionError):
        return spoil_bytes(content, random)
    how = random.randrange(4)
    if how == 0:  # entries of the container
        header = _spoil_value(header, random)
    elif how == 1:  # the tensors, with a checksum that fits again
        tensors = _extreme_floats(tensors, random)
        try:
            inner["tensors_sha256"] = tensors_sha256(load(_container(header, tensors)))
        except Exception:  # whatever safetensors says to an already spoiled container
            return _container(header, tensors)
        header["__metadata__"]["gcnn"] = json.dumps(inner)
    elif how == 2 and random.random() < 0.2:
        header["__metadata__"]["gcnn"] = "[" * _DEEP
    else:
        header["__metadata__"]["gcnn"] = json.dumps(_spoil_value(inner, random))
    return _container(header, tensors)


def _container(header: Any, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def _extreme_floats(tensors: bytes, random: Random) -> bytes:
    changed = bytearray(tensors)
    for _ in range(random.choice((1, 3))):
        at = 4 * random.randrange(max(1, len(tensors) // 4))
        changed[at : at + 4] = struct.pack("<f", random.choice((float("nan"), float("inf"), 3e38, -3e38, 1e-45, 0.0)))
    return bytes(changed)

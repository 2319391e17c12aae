"""Files spoiled without knowing their format, and lines of text."""

from collections.abc import Callable
from random import Random

Mutator = Callable[[bytes, Random], bytes]

_NUMBERS = [
    "0", "-1", "1", "2", "nan", "inf", "-inf", "1e400", "1e38", "1e-30", "-0.0", "0.7", "65535", "65536", "1000000",
    "2147483647", "2147483648", "4294967296", "9223372036854775807", "18446744073709551616", "9" * 30, "9" * 5000,
    "", "abc", "None", "1,5", "0x10", "½", "\u0661", "\x00", "\x1b[2J", "true", "1 1 1 1 1 1 1 1 1 1",
]  # fmt: skip


def spoil_bytes(content: bytes, random: Random) -> bytes:
    return random.choice(_BYTES)(content, random)


def _place(content: bytes, random: Random) -> int:
    """Half of the places lie in the first 400 bytes, where headers are."""
    most = len(content) if random.random() < 0.5 else min(len(content), 400)
    return random.randrange(most + 1)


def _truncate(content: bytes, random: Random) -> bytes:
    return content[: _place(content, random)] if random.random() < 0.7 else content[: -random.randrange(1, 40)]


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[min(_place(content, random), len(changed) - 1)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, random: Random) -> bytes:
    at, length = _place(content, random), random.choice((1, 2, 4, 8, 100, 1000))
    filled = random.choice((b"\0" * length, b"\xff" * length, random.randbytes(length)))
    return (content[:at] + filled + content[at + length :])[: len(content)]


def _insert(content: bytes, random: Random) -> bytes:
    at = _place(content, random)
    return content[:at] + random.randbytes(random.choice((1, 2, 7, 64, 3000))) + content[at:]


def _delete(content: bytes, random: Random) -> bytes:
    at = _place(content, random)
    return content[:at] + content[at + random.choice((1, 2, 4, 50, 500)) :]


def _repeat(content: bytes, random: Random) -> bytes:
    at, length = _place(content, random), random.choice((1, 4, 30, 300))
    return content[:at] + content[at : at + length] * random.choice((2, 3, 50)) + content[at + length :]


def _extreme_number(content: bytes, random: Random) -> bytes:
    at = _place(content, random)
    number = random.choice((0, 1, -1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1))
    width = random.choice((2, 4, 8))
    filled = (number % 256**width).to_bytes(width, random.choice(("little", "big")))
    return content[:at] + filled + content[at + width :]


def _nothing_left(content: bytes, random: Random) -> bytes:
    return random.choice((b"", b"\0" * len(content), random.randbytes(len(content)), b"hello\n" * 20))


_BYTES: tuple[Mutator, ...] = (
    _truncate, _flip, _flip, _overwrite, _insert, _delete, _repeat, _extreme_number, _nothing_left,
)  # fmt: skip


def spoil_lines(content: bytes, random: Random, values: list[str] = _NUMBERS, stop: int | None = None) -> bytes:
    """Lines exchanged, repeated, dropped, or a part of one replaced; what stands behind `stop` stays."""
    head, rest = content[:stop], b"" if stop is None else content[stop:]
    lines = head.decode("latin-1").split("\n")
    at = random.randrange(len(lines))
    how = random.randrange(6)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(random.randrange(len(lines)), lines[at])
    elif how == 2:
        other = random.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines[at] = _spoil_line(lines[at], random, values)
    return "\n".join(lines).encode("utf-8", "replace") + rest


def _spoil_line(line: str, random: Random, values: list[str]) -> str:
    value = random.choice(values)
    for separator in (" = ", ": "):
        key, found, old = line.partition(separator)
        if found:
            parts = old.split(" ")
            if random.random() < 0.5:
                parts[random.randrange(len(parts))] = value
                return key + separator + " ".join(parts)
            return key + separator + " ".join([value] * random.choice((1, len(parts))))
    cells = line.split(",")
    cells[random.randrange(len(cells))] = value
    return ",".join(cells)

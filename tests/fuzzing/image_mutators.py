"""MetaImage, NRRD and NIfTI files whose headers say what their voxels do not, and packed voxels that are bombs."""

import gzip
import struct
import zlib
from random import Random

from fuzzing.plain_mutators import spoil_bytes, spoil_lines

_METAIMAGE = """
BinaryData = False
CompressedData = True
CompressedData = False
CompressedDataSize = 999999999999
DimSize = 100000 100000 100000
DimSize = 2147483648 2 2
DimSize = 0 0 0
DimSize = -16 -16 4
ElementByteOrderMSB = True
ElementDataFile = LIST
ElementDataFile = LIST 1
ElementDataFile = LIST 999999999999
ElementDataFile = s%d.raw
ElementDataFile = s%d.raw 0 2147483647 1
ElementDataFile = s%9d.raw 0 3 0
ElementDataFile = s%s%n.raw 1 4
ElementDataFile = s%d.raw 0 3 1
ElementDataFile = ..
ElementDataFile = s.mhd
ElementDataFile = /dev/zero
ElementNumberOfChannels = 3
ElementSpacing = 1
ElementType = MET_DOUBLE
ElementType = MET_CHAR_ARRAY
HeaderSize = -1
HeaderSize = 99999
NDims = 2
NDims = 4
NDims = 9
"""
_NRRD = """
byte skip: -1
byte skip: 1000000000000
data file: LIST
data file: s%03d.raw 1 4 1
data file: /dev/zero
dimension: 2
dimension: 4
dimension: 16
encoding: raw
encoding: gzip
encoding: ascii
encoding: bzip2
endian: big
key:=value
kinds: vector domain domain
line skip: 100
sizes: 100000 100000 100000
sizes: 2147483648 2 2
sizes: 0 0 0
sizes: -1 -1 -1
space directions: (1,0,0) (0,1,0) (0,0,0)
space directions: (1,0) (0,1)
space directions: none (1,0,0) (0,1,0)
space origin: (nan,0,0)
space: scanner-xyz
spacings: 0 0 0
spacings: nan nan nan
type: double
type: block
"""


def spoil_metaimage(content: bytes, random: Random) -> bytes:
    end = content.find(b"ElementDataFile")
    end = content.find(b"\n", end) + 1 if end >= 0 else len(content)
    if random.random() < 0.5:
        return spoil_lines(content, random, stop=end)
    return _with_field(content, random.choice(_METAIMAGE.strip().splitlines()), " = ", end, random)


def spoil_nrrd(content: bytes, random: Random) -> bytes:
    end = content.find(b"\n\n") + 1 or len(content)
    if random.random() < 0.5:
        return spoil_lines(content, random, stop=end)
    return _with_field(content, random.choice(_NRRD.strip().splitlines()), ": ", end, random)


def _with_field(content: bytes, field: str, separator: str, end: int, random: Random) -> bytes:
    """The header with a field replaced, or added in some place."""
    name = field.partition(separator)[0]
    lines = content[:end].decode("latin-1").split("\n")
    at = next((n for n, line in enumerate(lines) if line.startswith(name + separator)), None)
    if at is None:
        lines.insert(random.randrange(1, max(2, len(lines) - 1)), field)
    else:
        lines[at] = field
    return "\n".join(lines).encode("latin-1") + content[end:]


_NIFTI_FIELDS = [
    *(("h", 40 + 2 * n) for n in range(8)), ("h", 70), ("h", 72), *(("f", 76 + 4 * n) for n in range(8)),
    ("f", 108), ("f", 112), ("f", 116), ("B", 123), ("h", 252), ("h", 254), *(("f", 256 + 4 * n) for n in range(18)),
    ("i", 0), ("i", 344),
]  # fmt: skip
_NIFTI_VALUES: dict[str, tuple[float, ...]] = {
    "h": (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 64, 128, 768, 1024, 1280, 1536, 1792, 2304, 32767, -32768),
    "i": (0, 348, 540, 2**31 - 1, -1, 0x312B6E),
    "f": (0, -1, 1, 1e-30, 1e30, 3e38, float("nan"), float("inf"), float("-inf"), 352, 1e10, 5.5, 0.5),
    "B": (0, 1, 2, 3, 5, 255),
}


def spoil_nifti(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        fmt, at = random.choice(_NIFTI_FIELDS)
        if len(changed) >= 352:
            struct.pack_into(f"<{fmt}", changed, at, random.choice(_NIFTI_VALUES[fmt]))
    return bytes(changed)


def spoil_gzip(content: bytes, random: Random) -> bytes:
    try:
        plain = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return spoil_bytes(content, random)
    if random.random() < 0.1:  # a bomb, under a header that promises as much
        changed = bytearray(plain)
        if len(changed) >= 352:
            struct.pack_into("<3h", changed, 42, 1000, 1000, random.choice((20, 30000)))
        return gzip.compress(bytes(changed) + b"\0" * 40_000_000, 9, mtime=0)
    plain = spoil_nifti(plain, random) if random.random() < 0.7 else spoil_bytes(plain, random)
    return gzip.compress(plain, mtime=0)


def spoil_zraw(content: bytes, random: Random) -> bytes:
    if random.random() < 0.2:
        return zlib.compress(b"\0" * 40_000_000, 9)
    try:
        return zlib.compress(spoil_bytes(zlib.decompress(content), random))
    except zlib.error:
        return spoil_bytes(content, random)

"""Ways to spoil a file: as disks, networks and careless programs do, and as nobody but a fuzzer would.

`spoil(files, random)` changes one to three things. Half of the changes know nothing but bytes; the
others know the format and put a value where it does most harm: sizes that promise more than the file
holds, spacings of zero, NaN, header entries that contradict each other, sums made right again.
"""

import io
import tarfile
import zipfile
from random import Random

from fuzzing.dicom_mutators import spoil_dicom
from fuzzing.image_mutators import spoil_gzip, spoil_metaimage, spoil_nifti, spoil_nrrd, spoil_zraw
from fuzzing.inputs import Files
from fuzzing.plain_mutators import Mutator, spoil_bytes
from fuzzing.structured_mutators import spoil_csv, spoil_json, spoil_toml, spoil_weights


def spoil(files: Files, random: Random) -> Files:
    """The files with one to three of them changed, removed or exchanged."""
    spoiled = dict(files)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if not spoiled:
            break
        name = random.choice(sorted(spoiled))
        if len(spoiled) > 1 and random.random() < 0.05:
            _among_files(spoiled, name, random)
        else:
            spoiled[name] = _spoil_one(name, spoiled[name], random)
    return spoiled


def _among_files(files: Files, name: str, random: Random) -> None:
    other = random.choice(sorted(files))
    how = random.randrange(3)
    if how == 0:
        del files[name]
    elif how == 1:
        files[name] = files[other]
    else:
        files[name], files[other] = files[other], files[name]


def _spoil_one(name: str, content: bytes, random: Random) -> bytes:
    knowing = next((m for ending, m in _OF_FORMAT.items() if name.endswith(ending)), None)
    if knowing is not None and random.random() < 0.6:
        return knowing(content, random)
    return spoil_bytes(content, random)


def spoil_zip(content: bytes, random: Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {m.filename: archive.read(m) for m in archive.infolist()}
    except Exception:  # whatever zipfile says to an already spoiled archive
        return spoil_bytes(content, random)
    buffer = io.BytesIO()
    how = random.random()
    if how < 0.6:
        members = spoil({name: member for name, member in members.items() if not name.endswith("/")}, random)
    elif how < 0.8:
        members[random.choice(("../out.dcm", "/tmp/out.dcm", "a/../../b", "x" * 300, "series", "C:\\x", "\0", ""))] = (
            b"DICM"
        )
    else:
        members["zeros"] = b"\0" * 30_000_000
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def spoil_tar(content: bytes, random: Random) -> bytes:
    packed = content[:2] == b"\x1f\x8b"
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = {m.name: archive.extractfile(m).read() for m in archive.getmembers() if m.isreg()}
    except Exception:  # whatever tarfile says to an already spoiled archive
        return spoil_bytes(content, random)
    if random.random() < 0.6:
        members = spoil(members, random)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if packed else "w", format=random.choice((0, 1, 2))) as archive:
        for name, member in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
        if random.random() < 0.4:
            archive.addfile(*_hostile_member(random))
    plain = buffer.getvalue()
    if packed or random.random() < 0.5:
        return plain
    at = random.randrange(0, max(512, len(plain) - 512), 512)  # a header, if members are short
    return plain[:at] + spoil_bytes(plain[at : at + 512], random) + plain[at + 512 :]


def _hostile_member(random: Random) -> tuple[tarfile.TarInfo, io.BytesIO]:
    name = random.choice(("../out.dcm", "/tmp/out.dcm", "a/../../b", "x" * 90, "scan", "C:\\x", "a\nb"))
    info = tarfile.TarInfo(name)
    kinds = (
        tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE,
        tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"Q",
    )  # fmt: skip
    info.type, info.linkname = random.choice(kinds), "/etc/passwd"
    content = bytes(128) + b"DICM" + bytes(random.choice((0, 500, 30_000_000)))
    info.size = len(content)
    return info, io.BytesIO(content)


_OF_FORMAT: dict[str, Mutator] = {
    ".mhd": spoil_metaimage, ".mha": spoil_metaimage, ".zraw": spoil_zraw, ".nrrd": spoil_nrrd,
    ".nhdr": spoil_nrrd, ".nii": spoil_nifti, ".hdr": spoil_nifti, ".tar": spoil_tar, ".tar.gz": spoil_tar,
    ".gz": spoil_gzip, ".dcm": spoil_dicom, ".zip": spoil_zip, ".csv": spoil_csv, ".toml": spoil_toml,
    ".json": spoil_json, ".jsonl": spoil_json, ".safetensors": spoil_weights,
}  # fmt: skip

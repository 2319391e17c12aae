"""Images in more than one file: NIfTI pairs, lists and patterns of MetaImage. Missing and short parts are refused."""

import shutil

import numpy as np
import pytest
from scan.scans import axial, oblique, some_hu
from scan.test_reading import write_file

from gcnn_cli.errors import InputError
from gcnn_cli.scan.images.image_file import read_image, read_mask
from gcnn_cli.scan.reading import read_volume

HU = some_hu((5, 6, 7))


def pair(folder, suffixes=(".hdr", ".img"), version=b"ni1\0", to_world=None):
    """A NIfTI file cut into header and voxels."""
    content = bytearray(write_file(folder / "a.nii", HU, oblique() if to_world is None else to_world).read_bytes())
    (folder / "a.nii").unlink()
    start = int(np.frombuffer(content[108:112], "<f4")[0])
    content[344:348], content[108:112] = version, np.float32(0).tobytes()
    (folder / f"a{suffixes[0]}").write_bytes(content[:348])
    (folder / f"a{suffixes[1]}").write_bytes(content[start:])
    return folder / f"a{suffixes[0]}"


@pytest.mark.parametrize("suffixes", [(".hdr", ".img"), (".HDR", ".IMG")])
def test_a_nifti_pair_is_the_same_scan_as_one_file(tmp_path, suffixes):
    one = read_volume(write_file(tmp_path / "a.nii", HU, oblique()))
    two = read_volume(pair(tmp_path, suffixes))
    np.testing.assert_array_equal(two.hu, one.hu)
    np.testing.assert_array_equal(two.to_world, one.to_world)
    assert (two.source.kind, two.source.series_uid, two.source.sha256) == ("nifti", "a", one.source.sha256)


def test_analyze_is_refused_for_its_unknown_sides(tmp_path):
    with pytest.raises(InputError, match=r"Analyze 7\.5, which does not state what is left and right"):
        read_volume(pair(tmp_path, version=bytes(4)))


def test_the_voxels_of_a_pair_are_no_scan_of_their_own(tmp_path):
    path = pair(tmp_path)
    with pytest.raises(InputError, match=r"a\.img: the voxels of a pair of files; give their header, a\.hdr"):
        read_volume(path.with_suffix(".img"))


def test_a_pair_without_voxels_or_with_few(tmp_path):
    path = pair(tmp_path)
    voxels = path.with_suffix(".img")
    voxels.write_bytes(voxels.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a\.img: truncated, holds 419 bytes of voxels where 420 are declared"):
        read_volume(path)
    voxels.unlink()
    with pytest.raises(InputError, match=r"its voxels, a\.img, are missing"):
        read_volume(path)


def parts(folder, element_data_file, names, *, header=b"", lines=()):
    """A MetaImage with one file for each slice."""
    path = write_file(folder / "whole.mha", HU, axial())
    text = path.read_bytes().split(b"ElementDataFile")[0].decode()
    text = text.replace("CompressedData = True", "CompressedData = False")
    text = "".join(line + "\n" for line in text.splitlines() if not line.startswith("CompressedDataSize"))
    for name, plane in zip(names, HU, strict=False):
        (folder / name).write_bytes(header + plane.astype("<i2").tobytes())
    made = folder / "a.mhd"
    made.write_text(text + f"ElementDataFile = {element_data_file}\n" + "".join(line + "\n" for line in lines))
    return made


NAMES = [f"s{n}.raw" for n in range(5)]
SPREAD = {
    "list": ("LIST", NAMES, NAMES),
    "list of planes": ("LIST 2", NAMES, NAMES),
    "list of planes, as some write it": ("LIST 2D", NAMES, NAMES),
    "pattern with its numbers": ("s%d.raw 0 4 1", NAMES, ()),
    "pattern with zeros": ("s%03d.raw 2 10 2", [f"s{n:03d}.raw" for n in range(2, 12, 2)], ()),
    "pattern alone": ("s%d.raw", [f"s{n}.raw" for n in range(1, 6)], ()),
    "pattern with its first number": ("s%02d.raw 7", [f"s{n:02d}.raw" for n in range(7, 12)], ()),
}


@pytest.mark.parametrize(("element", "names", "lines"), SPREAD.values(), ids=SPREAD)
def test_slices_in_files_of_their_own(tmp_path, element, names, lines):
    volume = read_volume(parts(tmp_path, element, names, lines=lines))
    np.testing.assert_array_equal(volume.hu, HU)
    np.testing.assert_allclose(volume.to_world, axial())


def test_the_order_is_that_of_the_list(tmp_path):
    volume = read_volume(parts(tmp_path, "LIST", NAMES, lines=NAMES[::-1]))
    np.testing.assert_array_equal(volume.hu, HU[::-1])


def test_each_file_may_have_a_header(tmp_path):
    path = parts(tmp_path, "LIST", NAMES, header=b"x" * 16, lines=NAMES)
    for value in ("16", "-1"):
        path.write_text(f"HeaderSize = {value}\n" + path.read_text().split("HeaderSize = 16\n")[-1])
        np.testing.assert_array_equal(read_volume(path).hu, HU)


REFUSED = {
    "too few names": ("LIST", NAMES[:4], "lists 4 data files where its size needs 5"),
    "other numbers": ("s%d.raw 0 5 1", (), "numbers its data files 0 to 5 by 1 where its size needs 5"),
    "no such pattern": ("s%s.raw", (), "a pattern that is not understood"),
    "two numbers in a name": ("s%d_%d.raw", (), "a pattern that is not understood"),
    "no number": ("LIST all", NAMES, "its ElementDataFile is 'LIST all'"),
    "a missing file": ("LIST", [*NAMES[:4], "gone.raw"], "its data file 'gone.raw' is missing"),
}


@pytest.mark.parametrize(("element", "lines", "reason"), REFUSED.values(), ids=REFUSED)
def test_lists_and_patterns_that_do_not_fit_are_refused(tmp_path, element, lines, reason):
    with pytest.raises(InputError, match=reason):
        read_volume(parts(tmp_path, element, NAMES, lines=lines))


def test_every_part_is_bounded(tmp_path):
    path = parts(tmp_path, "LIST", NAMES, lines=NAMES)
    (tmp_path / NAMES[3]).write_bytes(b"x" * 83)
    with pytest.raises(InputError, match=r"s3\.raw: truncated, holds 83 bytes of voxels where 84 are declared"):
        read_volume(path)


def test_a_size_that_needs_endless_files_is_refused_at_once(tmp_path):
    path = parts(tmp_path, "s%d.raw", NAMES)
    path.write_text(path.read_text().replace("DimSize = 7 6 5", "DimSize = 7 6 2000000000"))
    with pytest.raises(InputError, match="needs 2000000000 data files: more than a scan has slices"):
        read_volume(path)


def test_masks_may_be_in_several_files(tmp_path):
    np.testing.assert_array_equal(read_mask(parts(tmp_path, "LIST", NAMES, lines=NAMES)).hu, HU > 0)


def test_a_pair_and_its_copy_elsewhere(tmp_path):
    path = pair(tmp_path)
    (tmp_path / "b c").mkdir()
    for suffix in (".hdr", ".img"):
        shutil.copy(path.with_suffix(suffix), tmp_path / "b c" / f"ü.1{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / "b c" / "ü.1.hdr").hu, HU)

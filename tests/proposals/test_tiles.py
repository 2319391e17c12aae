"""A tile shows its nodule where its map says it is, however it was turned; nothing unmeasured is learned from."""

import numpy as np
import pytest

from gcnn_cli.proposals.scenes import Scene
from gcnn_cli.proposals.tiles import TileGeometry, _in_thick_slices, cut_cube, make_tile

GEOMETRY = TileGeometry(side=48, first=14.5, step=2, count=10)
CENTER = np.array([40.3, 44.8, 51.1])
NONE = np.zeros((0, 4))


def scene(diameter=9.0, kind="scan", shape=(90, 92, 96), center=CENTER, searched=None, unsure=NONE, labelled=True):
    """Lung with one ball in it."""
    distance = np.linalg.norm(np.indices(shape).transpose(1, 2, 3, 0) - center, axis=3)
    hu = np.round(-850 + 900 * np.clip(0.5 + diameter / 2 - distance, 0, 1)).astype(np.int16)
    searched = np.ones(shape, bool) if searched is None else searched
    nodules = np.array([[*center, diameter]])
    return Scene(hu, nodules, unsure, searched, kind, "patient", "name", labelled)


def tile(made, seed, off=(0, 0, 0)):
    cube, start = cut_cube(made, made.nodules[0, :3] + off, GEOMETRY)
    return make_tile(made, cube, start, made.nodules, GEOMETRY, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(24))
def test_the_map_marks_the_ball_that_the_tile_shows(seed):
    made = tile(scene(), seed, off=np.random.default_rng(seed).uniform(-6, 6, 3))
    assert made.hu.shape == (48,) * 3
    assert made.positive.shape == (10,) * 3
    assert made.positive.sum() == pytest.approx(1)
    weight = np.clip(made.hu + 450, 0, None)
    seen = (np.indices(made.hu.shape) * weight).sum(axis=(1, 2, 3)) / weight.sum()
    index = np.indices(made.positive.shape)
    marked = GEOMETRY.first + GEOMETRY.step * (index * made.positive).sum(axis=(1, 2, 3))
    assert np.linalg.norm(seen - marked) < 1.6


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("diameter", [4.0, 9.0, 24.0])
def test_no_place_inside_a_nodule_is_a_negative(seed, diameter):
    made = tile(scene(diameter), seed)
    assert not made.negative[made.positive > 0].any()
    assert made.positive.any()
    places = GEOMETRY.first + GEOMETRY.step * np.argwhere(made.negative)
    at = np.clip(np.round(places).astype(int), 0, 47)
    bright = made.hu[tuple(at.T)] > -300
    assert not bright.any()


@pytest.mark.parametrize("seed", range(12))
def test_thick_slices_move_nothing(seed):
    ramp = np.broadcast_to(np.arange(60, dtype=np.float32)[:, None, None], (60, 4, 4))
    thick = _in_thick_slices(ramp, np.random.default_rng(seed))
    assert np.allclose(thick[8:52], ramp[8:52])


def test_where_nobody_looks_is_neither():
    made = tile(scene(searched=np.zeros((90, 92, 96), bool)), 0)
    assert made.positive.any()
    assert not made.negative.any()


def test_a_doubtful_mark_is_neither():
    doubtful = np.array([[CENTER[0] + 8, CENTER[1], CENTER[2], 6.0]])
    for seed in range(6):
        sure, unsure = tile(scene(), seed), tile(scene(unsure=doubtful), seed)
        assert (unsure.negative <= sure.negative).all()
        assert unsure.negative.sum() < sure.negative.sum()
        assert np.array_equal(unsure.positive, sure.positive)


@pytest.mark.parametrize("kind", ["chunk", "cut-out"])
def test_nothing_is_learned_from_what_stands_in_for_the_missing(kind):
    shape, center = (12, 30, 30), np.array([6.0, 15.0, 15.0])
    for seed in range(8):
        made = tile(scene(kind=kind, shape=shape, center=center), seed)
        counted = made.negative | (made.positive > 0)
        # The map covers 20 voxels along an axis, and 10 of the 12 slices count: some 12 places when shrunk by 15 %.
        assert counted.mean() < 0.7


def test_a_tile_is_the_same_for_the_same_seed():
    first, second = tile(scene(), 5), tile(scene(), 5)
    assert np.array_equal(first.hu, second.hu)
    assert np.array_equal(first.positive, second.positive)

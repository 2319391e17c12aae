"""The networks of Winkels & Cohen (2018, arXiv:1804.04656; Medical Image Analysis 2019), as recipes by name.

    conv, pool 1x2x2, conv, conv, pool 2x2x2, conv, conv, pool 2x2x2, conv, flatten, dense layer

All convolutions are 3x3x3 with batch normalization and ReLU, on patches of 12 x 72 x 72 voxels (z, y, x) of
1.25 x 0.5 x 0.5 mm, HU scaled from -1000..300. Fields are divided by sqrt |G|, so that the convolutions of all groups
have about as many parameters.

A name that ends in `-span` has our head in place of the article's: a group convolution over the whole map, then
group pooling. The article's head flattens the map and is not invariant. O and Oh exchange z with y and x, along which
these patches differ: with them the article shared weights and had no symmetry of the scan, nor have these recipes.

What else differs from the article: batch normalization has statistics, scale and shift by field (the published code
had constant statistics and a scale for each orientation), D4h has its fourfold axis along z, one logit stands for the
two of a softmax, and the optimizer, its schedule and the start values are ours.
"""

from typing import Any

from gcnn_cli.network.architecture import NetworkConfig
from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.symmetry.shapes import turns

_PREFIX, _SPANNING = "winkels2018-", "-span"
_SIDE, _SPACING_MM, _CUBE = (12, 72, 72), (1.25, 0.5, 0.5), (24, 108, 108)
_TURNS = "D4h"  # the largest group that turns these patches into themselves

# As in the article; of C4h, which it did not have, by the same rule as D4, which has as many elements.
ARTICLE_FIELDS: dict[str, tuple[int, ...]] = {
    "trivial": (16, 16, 32, 32, 64, 64),
    "C4h": (6, 6, 11, 11, 23, 23),
    "D4": (6, 6, 11, 11, 23, 23),
    "D4h": (4, 4, 8, 8, 16, 16),
    "O": (3, 3, 7, 7, 13, 13),
    "Oh": (2, 2, 5, 5, 9, 9),
}


def _is_symmetric(group: str) -> bool:
    return turns(make_group(group), _SIDE)


# name: (group, head)
ARTICLE_NETWORKS: dict[str, tuple[str, str]] = {
    **{f"{_PREFIX}{group.lower()}": (group, "flatten") for group in ARTICLE_FIELDS},
    **{f"{_PREFIX}{group.lower()}{_SPANNING}": (group, "span") for group in ARTICLE_FIELDS if _is_symmetric(group)},
}


def article_sections(name: str) -> dict[str, dict[str, Any]]:
    """Return the sections of the recipe of this name, as a TOML file would have them.

    Batches of 30, early stopping after 5 validations without a better score.
    """
    group, head = ARTICLE_NETWORKS[name]
    return {
        "network": {
            "group": group,
            "fields": ARTICLE_FIELDS[group],
            "pool_after": (1, 3, 5),
            "pools": ((1, 2, 2), 2, 2),
            "side": _SIDE,
            "head": head,
            "weight_sharing": not _is_symmetric(group),
        },
        "input": {"spacing_mm": _SPACING_MM, "side": _SIDE, "hu_low": -1000.0, "hu_high": 300.0},
        "samples": {"spacing_mm": _SPACING_MM, "side": _CUBE},
        "augment": {"turn_group": _TURNS, "scale": 0.2},
        "train": {"batch_size": 30, "patience": 5},
    }


def article_network(name: str) -> NetworkConfig:
    """Return the configuration of the network of this name."""
    return NetworkConfig(**article_sections(name)["network"])

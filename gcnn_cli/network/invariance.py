"""What a configuration promises: invariance under its group, or weights shared over the group and no more."""

from gcnn_cli.errors import ModelError
from gcnn_cli.network.architecture import NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.symmetry.shapes import check_turns


def check_symmetric_voxels(config: NetworkConfig, spec: InputSpec) -> None:
    """Raise ModelError where the group exchanges axes of different spacing, unless weight sharing alone is asked for.

    Turned by such a group, a patch would show a nodule that is stretched: no symmetry of scans.
    """
    if not config.weight_sharing:
        check_turns(make_group(config.group), spec.spacing_zyx, "the spacing in mm")


def limits_of(config: NetworkConfig, spec: InputSpec) -> str:
    """Return a sentence that says why the score may change when a patch is turned; empty if it may not."""
    if config.group == "trivial":
        return ""
    group = make_group(config.group)
    for lengths, what in (
        (config.sides, "the patch"),
        (spec.spacing_zyx, "the spacing in mm"),
        *((sides, "the block of a pooling") for sides in config.pool_sides),
    ):
        try:
            check_turns(group, lengths, what)
        except ModelError as error:
            return f"weight sharing alone, by configuration: {error}"
    if config.weight_sharing:
        return "weight sharing alone, by configuration"
    if config.head == "flatten":
        return "not invariant, by configuration: the head flattens the map, as in the article"
    return ""

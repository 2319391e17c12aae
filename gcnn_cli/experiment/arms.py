"""The arms of the data-efficiency experiment: networks that differ in symmetry, augmentation or width.

Every arm is trained by the same recipe. All arms but one augment by turning patches by the elements of Oh, so that the
gain of a group is not a lack of augmentation in the plain CNN.
"""

from dataclasses import dataclass, replace

from gcnn_cli.errors import UsageError
from gcnn_cli.network.architecture import FIELDS, NetworkConfig
from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.symmetry.shapes import turns
from gcnn_cli.training.article import ARTICLE_NETWORKS, article_network
from gcnn_cli.training.loop import TrainConfig


@dataclass(frozen=True)
class Arm:
    """One kind of training.

    pooled_over: groups whose test-time pooling is also measured on the trained network
    network:     the whole network, where the recipe's with another group and other fields is not meant
    """

    name: str
    group: str
    fields: tuple[int, ...]
    turn_group: str = "Oh"
    pooled_over: tuple[str, ...] = ()
    network: NetworkConfig | None = None

    def configure(self, config: TrainConfig, seed: int) -> TrainConfig:
        """Return the settings with this arm's network and augmentation, and a run's seed."""
        network = self.shape(config.network)
        return replace(config, network=network, augment=replace(config.augment, turn_group=self.turn_group), seed=seed)

    def shape(self, network: NetworkConfig) -> NetworkConfig:
        """Return this arm's network, given the recipe's. Raises ModelError for a group that is no symmetry of it."""
        return self.network or replace(network, group=self.group, fields=self.fields)


# The wide plain CNN has as many real channels as O's network and does the same arithmetic; without the expansion of
# the filters a step takes nine tenths of the time. The other arms have about as many parameters as O's network.
_WIDE = tuple(make_group("O").order * fields for fields in FIELDS["O"])


def make_arms(names: tuple[str, ...], network: NetworkConfig) -> tuple[Arm, ...]:
    """Make arms by name: a group, `unturned` (plain, no augmentation by turning) or `wide` (plain, O's compute).

    One of the article's networks is an arm by its own name, where the recipe has its patches. Fields set in the recipe
    replace those of every group (for quick trials). Patches that Oh does not turn into themselves are turned by D4h.
    Raises UsageError for an unknown name or other patches, ModelError for a group that is no symmetry of the patches.
    """
    fields = None if network.fields == FIELDS[network.group] else network.fields
    cubic = turns(make_group("Oh"), network.sides)
    turn_group, pooled_over = ("Oh", ("O",)) if cubic else ("D4h", ("D4h",))
    arms = {group: Arm(group, group, fields or widths, turn_group) for group, widths in FIELDS.items()}
    arms["trivial"] = replace(arms["trivial"], pooled_over=pooled_over)
    arms["unturned"] = replace(arms["trivial"], name="unturned", turn_group="trivial", pooled_over=())
    arms["wide"] = Arm("wide", "trivial", tuple(2 * width for width in fields) if fields else _WIDE, turn_group)
    arms |= {name: _article_arm(name) for name in ARTICLE_NETWORKS}
    unknown = [name for name in names if name not in arms]
    if unknown:
        raise UsageError(f"unknown arm {unknown[0]!r}: choose from {', '.join(arms)}")
    chosen = tuple(arms[name] for name in names)
    for arm in chosen:
        if arm.shape(network).sides != network.sides:
            raise UsageError(f"arm {arm.name} has patches of {arm.shape(network).side}; use --config {arm.name}")
    return chosen


def _article_arm(name: str) -> Arm:
    network = article_network(name)
    return Arm(name, network.group, network.fields, "D4h", ("D4h",) if network.group == "trivial" else (), network)

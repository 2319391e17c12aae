"""A synthetic chest CT with nodules at known positions: no patient, no license, the same bytes every time.

The anatomy is schematic, drawn from formulas and random trees. It exercises every step of the program
and its tests. It does not measure how well the program does on patients.
"""

from gcnn_cli.phantom.config import KINDS, Phantom, PhantomConfig, PhantomNodule, quick_config
from gcnn_cli.phantom.render import make_phantom
from gcnn_cli.phantom.sample import write_phantom

__all__ = [
    "KINDS",
    "Phantom",
    "PhantomConfig",
    "PhantomNodule",
    "make_phantom",
    "quick_config",
    "write_phantom",
]

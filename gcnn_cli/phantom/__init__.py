"""A synthetic chest CT with nodules at known places: for tests, samples and first steps.

Schematic, but a chest: wall, ribs, spine, mediastinum, two lungs, branching vessels and airways,
noise with a reconstruction's grain, partial volume. The truth is computed from the same shapes that
are drawn. Frame: LPS mm, origin between the lungs; arrays (z, y, x).
"""

from gcnn_cli.phantom.scene import Phantom, PhantomConfig, make_phantom
from gcnn_cli.phantom.storage import write_phantom

__all__ = ["Phantom", "PhantomConfig", "make_phantom", "write_phantom"]

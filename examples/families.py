"""What the size dial makes of every family: layers, weights, and the work of reading one token.

    python examples/families.py [SIZE ...]

Nothing is trained and no weight is made: a config counts itself.
"""

import sys

from qualm import registry
from qualm.cli.train import size_of
from qualm.training.size import config_of, depth_of

LENGTH = 128

for size in sys.argv[1:] or ["tiny", "small", "124M"]:
    print(f"{size:<15} {'layers':>6} {'weights':>14} {'MFLOP a token':>14}")
    for family in registry.names("models"):
        depth = depth_of(size_of(size), family)
        config = config_of(family, depth, length=LENGTH)
        work = config.flops(LENGTH, LENGTH) / LENGTH / 1e6
        print(f"  {family:<13} {config.layers:>6} {config.parameters:>14,} {work:>14.1f}")

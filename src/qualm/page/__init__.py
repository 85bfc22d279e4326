"""What every page of ours is made of: markup, axes, colours, and a head that lets nothing be loaded."""

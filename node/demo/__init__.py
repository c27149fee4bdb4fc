"""A tree for show: real names of units, synthetic members. Nothing else of the node depends on it."""

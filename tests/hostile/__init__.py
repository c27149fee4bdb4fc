"""Hostile bytes: mutants of real frames and batches, and what a node makes of them (``python -m tests.hostile``).

``corpus`` makes real ones, ``unsigned``, ``forged`` and ``talk`` change them, ``judge`` shows them to real nodes.
"""

"""A whole tree in one deterministic process: production code on real SQLite files, one seed for everything else.

``python -m tests.simulation --seed N`` replays one run with its trace; ``make soak SEEDS=n FIRST_SEED=m`` runs many.
The parts: ``process`` (a node that can crash), ``link`` (a session over a bad line), ``editor`` (the clerks),
``truth`` (what was really written, and the oracle), ``checks`` (the invariants), ``run`` (one seed), ``mutants``.
"""

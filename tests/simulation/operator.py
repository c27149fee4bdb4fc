"""The operators: they look at what the brake holds, and release it or take it back.

Role: decide about brakes as ``dongbo release`` and ``dongbo undo`` do; tell the truth what an undo has written.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from node.storage.brake import UNDOING, Brake, open_brakes
from node.storage.undo import change_back, settle, wanted_rows
from tests.simulation.process import Process
from tests.simulation.truth import Truth, Undone


class Operator:
    """``count`` is told what was decided, ``say`` as well."""

    def __init__(self, rng: Random, truth: Truth, count: Callable[[str], None], say: Callable[[str], None]) -> None:
        self.rng, self.truth, self.count, self.say = rng, truth, count, say

    def decide(self, node: Process) -> None:
        """Everything pending is sealed before, so that nothing is sealed in passing."""
        while node.seal_one():
            pass
        for brake in node.read(open_brakes):
            self.count("brake pulled")
            if brake.state == UNDOING or self.rng.random() < 0.6:
                self._undo(node, brake)
                self.count("brake undone")
            else:
                node.write(settle, node.context, brake, undone=False)
                self.count("brake released")

    def _undo(self, node: Process, brake: Brake) -> None:
        self.say(f"{node.unit} takes back what brake {brake.no} holds: {sorted(brake.registers)}")
        for table in sorted({name for name, _register in brake.registers}):
            rows = node.read(wanted_rows, node.context, brake, table)
            self._as_truth(node, change_back, brake, table, rows, None)
        self._as_truth(node, settle, brake, undone=True)
        stream, number = brake.stream, brake.from_seq
        ((held,),) = node.query(
            "SELECT held_seq FROM _stream WHERE origin = ? AND epoch = ? AND scope = ?",
            *(stream.origin, stream.epoch, stream.scope),
        )
        self.truth.undone.append(Undone((stream.origin, stream.epoch, stream.scope), number, held, brake.registers))

    def _as_truth(self, node: Process, work: Any, brake: Brake, *args: Any, **more: Any) -> None:
        """What is sealed now is written by nobody's statement: its batches say what it is."""
        self.truth.telling = node.name
        try:
            node.write(work, node.context, brake, *args, **more)
        finally:
            self.truth.telling = None

"""What happens once the faults have stopped: copies go, nodes call in rounds, operators decide about what waits.

Role: the schedule of the quiet end of a run. What must hold then is in peace.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from conflict.values import level_of
from sync_engine.names import parent_of
from tests.simulation.checks import Violation
from tests.simulation.link import Session

if TYPE_CHECKING:
    from tests.simulation.run import Run

STEPS_MAX = 20_000
"""No session of a short run takes a tenth of this."""
CALLS_TO_SHIP = 4
"""So many calls bring a machine that is to be switched off to where its parent has all it had."""


class Calm:
    """The end of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.units = run.units
        self.depth = max(map(level_of, run.units))

    def settle(self) -> None:
        """Until all are in step, and nothing waits for a person."""
        run = self.run
        self._end_faults()
        self._decide_about_copies()
        run.peace.remember()
        run.registrar.end()
        for node in run.nodes.values():
            run.operator.decide(node)
        for turn in range(2 * self.depth + 2):
            before = self._stand()
            run.custody.decide(at_once=True)
            self._round(run.rng.sample(self.units[1:], len(self.units) - 1), look=turn > 0)
            if before == self._stand():
                break  # another round would say the same
        if run.swarm.settles:
            self._decide_all()

    def _stand(self) -> tuple[int, int, int]:
        """What a round changes, if there is anything left to do."""
        return self.run.observer.progress, self.run.peace.proofs(), self.run.peace.meetings()

    def _end_faults(self) -> None:
        run = self.run
        for line in run.lines.values():
            line.rates, line.blocked, line.slow = {}, set(), 1
        run.swarm.rates = {}
        for node in run.nodes.values():
            node.fuse, node.alone_until = None, 0
        for child, session in list(run.sessions.items()):
            session.cut()
            self._to_its_end(child)
        for node in run.nodes.values():
            if not node.is_up:
                run.start(node)

    def _decide_about_copies(self) -> None:
        """Of two machines that are one node one goes. Some operators let it call before that, with all it has."""
        run = self.run
        for unit in run.custody.doubled():
            goes = run.custody.any_of(unit)
            for _ in range(CALLS_TO_SHIP if run.rng.random() < 0.6 else 0):
                self._once(goes.name)
                run.custody.approve(goes)
            run.switch_off(goes)

    def _round(self, children: Sequence[str], *, look: bool = True) -> None:
        """Each of these units calls its parent, if they are not level: they would tell each other so, and end."""
        run = self.run
        for unit in children:
            child, parent = run.custody.any_of(unit), run.custody.any_of(str(parent_of(unit)))
            if look and run.peace.are_level(child, parent):
                continue
            self._once(child.name)
            if child.keys.waiting and not child.is_refused:
                self._once(child.name)  # it has begun a new life, and has it certified

    def _once(self, child: str) -> None:
        """One call, to its end."""
        self.run.call(child)
        if child in self.run.sessions:
            session = self.run.sessions[child]
            self._to_its_end(child)
            self._judge(session)

    def _decide_all(self) -> None:
        """Some operators decide about some of what waits, each without the others, or some codes come; then the levels
        in turn decide about all of it, the root first, so that no two decide about one thing. Nothing waits anywhere
        after that."""
        run = self.run
        downwards = sorted(self.units[1:], key=level_of)
        if run.swarm.favourites:
            run.peace.check_nodes()
        else:
            run.editor.enter_codes(run.nodes[self.units[0]])
            self._round(downwards, look=False)
            run.peace.check_nodes()
        for turn in range(-1 if run.swarm.favourites else 0, self.depth + 1):
            for node in run.nodes.values():
                if turn in (-1, level_of(node.unit)):
                    run.settler.decide(node, 0.3 if turn < 0 else 1.0)
            self._round(downwards[::-1])
            self._round(downwards)
        for node in run.nodes.values():
            run.settler.catch_up(node)
            left = node.query("SELECT id, field FROM _conflict WHERE live = 1 AND state = 'open'")
            held = node.query("SELECT id, register FROM _write WHERE held > 0 AND covered = 0")
            if left or held:
                raise Violation(f"I1: at {node.unit} something waits still: {left} {held}")
        run.count("nothing waits")

    def _judge(self, session: Session) -> None:
        """A session on a good line, between nodes that stay up, ends well."""
        faults = [fault for end in session.ends.values() if (fault := end.ended_with()) is not None]
        if faults:
            raise Violation(f"I16: on a good line the session of {session.child.name} fails: {faults[0]}")
        self.run.peace.in_step(session.child, session.parent)

    def _to_its_end(self, child: str) -> None:
        for _ in range(STEPS_MAX):
            if child not in self.run.sessions:
                return
            self.run.frames(child)
        raise Violation(f"I16: the session of {child} does not end")

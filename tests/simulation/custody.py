"""Which machine is a unit's node, and which of its lives counts: certifying, refusing, and the operators who decide.

Role: stand in for the calls ``Renew`` and ``Enrol``, with the production code's own judgement: a node whose life is not
certified asks its parent before a session; of two machines that are one node the operators approve the second, as
``dongbo invite --recover`` does, or switch one of them off.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from random import Random

from dongbo.v1 import sync_pb2
from sqlalchemy import Connection

from conflict.values import UnitPath
from node import renewal
from node.storage.certificates import epoch_of, keep_path, mark_mine, path_of, time_of_next
from node.storage.context import Context
from node.storage.statements import keep
from sync_engine.certificates import verify_node_path
from sync_engine.errors import Cloned
from sync_engine.frames import Statement
from sync_engine.handover import key_hash
from sync_engine.names import parent_of
from sync_engine.statements import HANDOVER, Handover, body_of
from tests.simulation.identities import IDENTITIES, Identity
from tests.simulation.process import Process


class Custody:
    """``nodes`` by the names of the machines. ``switch_off`` takes a machine away for ever; ``count`` and ``say`` are
    told of what was decided."""

    def __init__(
        self,
        rng: Random,
        nodes: MutableMapping[str, Process],
        switch_off: Callable[[Process], None],
        count: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.rng, self.nodes, self.switch_off, self.count, self.say = rng, nodes, switch_off, count, say

    def machines(self, unit: str) -> list[Process]:
        return [node for node in self.nodes.values() if node.unit == unit]

    def any_of(self, unit: str) -> Process:
        """The machine that is met under a unit's address just now."""
        found = self.machines(unit)
        return found[0] if len(found) == 1 else self.rng.choice(found)

    def doubled(self) -> list[str]:
        """The units that have two machines."""
        units = [node.unit for node in self.nodes.values()]
        return sorted({unit for unit in units if units.count(unit) > 1})

    # --- certifying ---

    def certify(self, node: Process, parent: Process | None) -> None:
        """What a node does before a session, if it has begun a life that nobody has certified yet. The root certifies
        itself."""
        if not node.keys.waiting:
            return
        present, life = node.keys.certified, node.keys.sealing
        said = handover(node, life, present)
        if parent is not None:
            try:
                parent.write(grant, parent.context, present.path, life.path, said)
            except Cloned:
                if not node.is_refused:
                    self.count("refused successor")
                    self.say(f"{parent.name} has certified another life of {node.unit} than that of {node.name}")
                node.is_refused = True
                return
        self._install(node, life, said)

    def meet(self, node: Process, parent: Process) -> None:
        """What a parent does when a child calls with a certificate that it does not know, or no longer."""
        path = node.keys.certified.path
        if parent.look(path_of, UnitPath(node.unit), node.keys.certified.epoch) != path:
            certified = verify_node_path(path, parent.context.tree_id)
            parent.write(renewal.meet, parent.context, parent.keys, certified)  # type: ignore[arg-type]

    def _install(self, node: Process, life: Identity, said: Statement | None) -> None:
        former = node.keys.epoch
        node.write(adopt, node.context, life.path, said)
        node.install(life)
        self.count("certified")
        self.say(f"{node.name} is certified: {former[:4]} becomes {life.epoch[:4]}")

    # --- what operators do ---

    def decide(self, *, at_once: bool = False) -> None:
        """The operators look at what was refused. Where there is but one machine it is the right one."""
        for node in [node for node in self.nodes.values() if node.is_refused]:
            others = [each for each in self.machines(node.unit) if each is not node]
            if others and not at_once and self.rng.random() < 0.5:
                self.switch_off(self.rng.choice([node, *others]))
            else:
                self.approve(node)

    def approve(self, node: Process) -> None:
        """The parent's operator lets this machine go on, whichever other life comes after the one that it had."""
        above = [each for each in self.machines(str(parent_of(node.unit))) if each.is_up]
        if node.keys.waiting and node.is_up and above:
            life = node.keys.sealing
            self._vouch(self.rng.choice(above), life)
            self._install(node, life, None)
            self.count("approved")
            self.say(f"the operator approves {node.name}")

    def rebuild(self, node: Process) -> bool:
        """``recover --from-parent``: a home made anew; whether the parent was there to approve it."""
        above = [each for each in self.machines(str(parent_of(node.unit))) if each.is_up]
        if not above:
            return False
        former = node.keys.epoch
        node.rebuild()
        parent = self.rng.choice(above)
        said = self._vouch(parent, node.keys.certified)
        told = sync_pb2.Statement(tag=said.tag, body=said.body, signature=said.signature)
        node.vouched = sync_pb2.EnrolResponse(handover=told, signer_path=parent.keys.certified.path)
        self.count("rebuilt")
        self.say(f"{node.name} is rebuilt from nothing: {former[:4]} becomes {node.keys.epoch[:4]}")
        return True

    def _vouch(self, parent: Process, life: Identity) -> Statement:
        """A parent signs for a child's life, and keeps its certificate. Its operator gives the command until it is
        through: no crash of the parent leaves it half done."""
        fuse, parent.fuse = parent.fuse, None
        said = handover(parent, life, parent.keys.certified)
        try:
            parent.write(vouched, parent.context, life.path, said)
        finally:
            parent.fuse = fuse
        return said


def handover(signer: Process, life: Identity, by: Identity) -> Statement:
    """Under the certificate in place: that of a life that waits would prove nothing yet."""
    now = signer.now_ms()
    said = Handover(
        tree_id=IDENTITIES.tree_id,
        unit=UnitPath(life.unit),
        epoch=life.epoch,
        key_sha256=key_hash(IDENTITIES.public(life.unit, life.epoch)),
        signer=UnitPath(signer.unit),
        signer_epoch=by.epoch,
        time_ms=signer.look(time_of_next, UnitPath(life.unit), now) if signer.unit == life.unit else now,
    )
    body = body_of(said)
    return Statement(HANDOVER, body, by.sign(HANDOVER, body))


def enrol(parent: Process, child: Identity) -> None:
    """A parent keeps the first certificate of a unit right below it, and signs for it."""
    parent.write(vouched, parent.context, child.path, handover(parent, child, parent.keys.certified))


Path = tuple[bytes, ...]


def grant(connection: Connection, context: Context, present: Path, path: Path, said: Statement) -> None:
    """A parent certifies the life that comes after the one that a child calls with. Raises Cloned."""
    caller = keep_path(connection, present, context.tree_id)
    life = verify_node_path(path, context.tree_id)
    renewal.check_may_follow(connection, caller.unit, epoch_of(caller), epoch_of(life))
    vouched(connection, context, path, said)


def vouched(connection: Connection, context: Context, path: Path, said: Statement) -> None:
    keep_path(connection, path, context.tree_id)
    keep(connection, context, said)


def adopt(connection: Connection, context: Context, path: Path, said: Statement | None) -> None:
    """What others need to accept a new life is on the disk before it is lived in."""
    certified = keep_path(connection, path, context.tree_id)
    if said is not None:
        keep(connection, context, said)
    mark_mine(connection, certified)

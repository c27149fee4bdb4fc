"""What must hold between neighbours when the faults have stopped.

Role: heads (I16), digests and open conflicts (I6), and that whoever lost history has stopped and says so (I10, I11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from node.storage.digests import digest_scope
from sync_engine.batch import NO_PREV, parse_batch
from sync_engine.names import parent_of
from tests.simulation.checks import check_disk, require
from tests.simulation.following import Observer
from tests.simulation.model import holds
from tests.simulation.process import Process
from tests.simulation.registers import NodeCheck
from tests.simulation.truth import Truth

SCOPES = 1
"""Scopes of a pair whose digests are compared: the registers of all are compared with the truth in any case."""

Streams = dict[tuple[str, str, str], tuple[int, bytes, int, bytes, str]]
"""By origin, epoch and scope: held number and hash, applied number and hash, state."""


class Peace:
    """Runs with a hostile origin may end with streams that were left; no others may."""

    def __init__(
        self, nodes: Mapping[str, Process], truth: Truth, observer: Observer, rng: Random, count: Callable[[str], None]
    ) -> None:
        self.nodes, self.truth, self.observer, self.rng, self.count = nodes, truth, observer, rng, count
        self.must_stay: set[bytes] = set()
        """Batches that some disk had when it became quiet, each by its first name."""
        self.waits_for_ever: set[bytes] = set()
        """See ``_wait_for_what_is_gone``."""
        self.is_hostile = False
        """Whether an origin of this run breaks rules with its own key."""
        self.digests: dict[tuple[str, str], dict[str, bytes]] = {}

    def remember(self) -> None:
        """It is quiet now, and this is what has to reach everybody."""
        stored = (digest for node in self.nodes.values() for (digest,) in node.query("SELECT hash FROM _batch"))
        self.must_stay = {self.truth.first(digest) for digest in stored}

    def _wait_for_what_is_gone(self) -> set[bytes]:
        """By their first names, the batches that wait for one that was on several disks, and is on none any more. They
        are kept, and status says what they wait for; merged without it they would drive out what nobody has seen."""
        known = {
            digest
            for node in self.nodes.values()
            for table in ("_batch", "_repeat", "_stray")
            for (digest,) in node.query(f"SELECT hash FROM {table}")
        }
        waiting = {
            digest: {head.hash for head in header.seen_delta} | ({header.prev} - {NO_PREV})
            for node in self.nodes.values()
            for digest, data in node.query("SELECT hash, data FROM _batch WHERE state = 'waiting'")
            for header in [parse_batch(data).header]
        }
        gone, more = set[bytes](), {digest for digest, causes in waiting.items() if causes - known}
        while more:
            gone |= more
            more = {digest for digest, causes in waiting.items() if causes & gone} - gone
        for _ in gone:
            self.count("waits for what is gone")
        return {self.truth.first(digest) for digest in gone}

    def _nothing_lost(self, node: Process) -> None:
        """I1: what some disk had when it became quiet is merged everywhere where it may be."""
        applied = self.truth.nodes[node.name].applied
        lost = {
            digest
            for digest in self.must_stay - applied - self.waits_for_ever
            if holds(node.unit, self.truth.scopes[digest]) and digest in self.truth.batches
        }
        require(
            not lost or self._may_be_left,
            lambda: f"I1: {node.name} has not merged {sorted(each.hex()[:8] for each in lost)}",
        )

    def check_nodes(self) -> None:
        for node in self.nodes.values():
            NodeCheck(node, self.truth, self.count, self.nodes.values(), self.observer.restored).run()

    def check(self) -> None:
        self.waits_for_ever = self._wait_for_what_is_gone()
        self.check_nodes()
        for node in self.nodes.values():
            check_disk(node)
            require(not node.keys.waiting, lambda n=node: f"I16: the life of {n.name} is not certified")  # type: ignore[misc]
            self._nothing_lost(node)
        at = {node.unit: node for node in self.nodes.values()}
        for child, one in at.items():
            above = parent_of(child)
            if above is not None:
                other = at[above]
                self._lost_history(one, other)
                self._same_heads(one, other)
                self._same_proofs(one, other)
                self._same_digests(one, other)
                self._same_conflicts(one, other)

    def in_step(self, one: Process, other: Process) -> None:
        """I15, I16: one session on a good line brings both level in all that is not frozen; no stream holds another
        up."""
        mine, theirs = streams_of(one), streams_of(other)
        for stream in sorted({*mine, *theirs}):
            both = mine.get(stream), theirs.get(stream)
            healing = not self.observer.restored.isdisjoint({stream[0], one.unit, other.unit})
            if travels_on(stream[2], one.unit) and not is_frozen(*both) and not healing:
                level = both[0] is not None and both[1] is not None and both[0][:2] == both[1][:2]
                require(
                    level,
                    lambda s=stream, b=both: f"I15: after a session {one.unit} and {other.unit} hold {b} of {s}",  # type: ignore[misc]
                )

    def are_level(self, one: Process, other: Process) -> bool:
        """Whether two neighbours hold, have applied and know of the same of what travels between them, and have met in
        the lives that they lead: only then does either give up what the other might have whole."""
        if one.keys.waiting or other.keys.waiting or not (_has_met(one, other) and _has_met(other, one)):
            return False
        both = [
            {stream: row[:4] for stream, row in streams_of(node).items() if travels_on(stream[2], one.unit)}
            for node in (one, other)
        ]
        return both[0] == both[1] and self._forks(one, one.unit) == self._forks(other, one.unit)

    def _forks(self, node: Process, child: str) -> set[tuple[str, ...]]:
        rows = node.query("SELECT DISTINCT origin, epoch, scope FROM _fork JOIN _stream ON _stream.no = stream")
        return {row for row in rows if travels_on(row[2], child)}

    def meetings(self) -> int:
        """How many have had a session with whom, in the lives that they lead."""
        met = "SELECT count(*) FROM _peer WHERE met_in = ?"
        return sum(node.query(met, node.context.epoch)[0][0] for node in self.nodes.values())

    def proofs(self) -> int:
        """How many proofs of forks all nodes have, taken together."""
        return sum(node.query("SELECT count(*) FROM _fork")[0][0] for node in self.nodes.values())

    def _lost_history(self, one: Process, other: Process) -> None:
        """I10, I11: whatever a node has sealed in any of its lives, and its neighbour holds, it has got back."""
        for node, neighbour in ((one, other), (other, one)):
            stored = self.observer.of(node).stored
            for (digest,) in neighbour.query(
                "SELECT hash FROM _batch JOIN _stream ON _stream.no = stream WHERE origin = ?", node.unit
            ):
                require(
                    digest in stored,
                    lambda n=node, o=neighbour, d=digest: (  # type: ignore[misc]
                        f"I11: {o.name} holds a batch of {n.name} that this has not got back: {d.hex()[:8]}"
                    ),
                )

    def _same_heads(self, one: Process, other: Process) -> None:
        """I16; where an origin breaks rules a stream may be left, and what waits for it waits."""
        both = streams_of(one), streams_of(other)
        for stream in sorted({*both[0], *both[1]}):
            if not travels_on(stream[2], one.unit):
                continue
            mine, theirs = both[0].get(stream), both[1].get(stream)
            if self._may_be_left:
                same = is_frozen(mine, theirs) or (mine and mine[:2]) == (theirs and theirs[:2])
            else:
                same = mine == theirs and not is_frozen(mine) and mine is not None
                same = same and (mine[0] == mine[2] or bool(self.waits_for_ever))
            require(bool(same), lambda s=stream, m=mine, t=theirs: f"I16: {one.unit} {m}, {other.unit} {t} in {s}")  # type: ignore[misc]
        for row in (*both[0].values(), *both[1].values()):
            if is_frozen(row):
                self.count(f"{row[-1]} stream")
                require(self._may_be_left, lambda: f"I10: {one.unit} or {other.unit} left a stream")

    def _same_proofs(self, one: Process, other: Process) -> None:
        """I10: what proves a fork is known to all that go on; its origin does not."""
        both = [self._forks(node, one.unit) for node in (one, other)]
        for _ in both[0]:
            self.count("fork proven")
        require(
            both[0] == both[1], lambda: f"I10: {one.unit} and {other.unit} know of other forks: {both[0] ^ both[1]}"
        )

    @property
    def _may_be_left(self) -> bool:
        return self.is_hostile

    def _scopes(self, one: Process, other: Process) -> list[str]:
        """Scopes in which both have applied exactly the same."""
        both = []
        for node in (one, other):
            found: dict[str, set[bytes]] = {}
            for scope, digest in node.query("SELECT scope, applied_hash FROM _stream WHERE applied_seq > 0"):
                found.setdefault(scope, set()).add(digest)
            both.append(found)
        return sorted(scope for scope in both[0] if both[0][scope] == both[1].get(scope))

    def _same_digests(self, one: Process, other: Process) -> None:
        scopes = self._scopes(one, other)
        for scope in self.rng.sample(scopes, min(SCOPES, len(scopes))):
            mine, theirs = (self._digest(node, scope) for node in (one, other))
            for column in sorted({*mine} & {*theirs}):
                require(
                    mine[column] == theirs[column],
                    lambda s=scope, c=column: f"I6: {one.unit} and {other.unit} differ in {c} of {s}",  # type: ignore[misc]
                )

    def _digest(self, node: Process, scope: str) -> dict[str, bytes]:
        if (node.name, scope) not in self.digests:
            self.digests[(node.name, scope)] = node.look(digest_scope, node.context, scope).columns
        return self.digests[(node.name, scope)]

    def _same_conflicts(self, one: Process, other: Process) -> None:
        scopes = set(self._scopes(one, other))
        both = []
        for node in (one, other):
            rows = node.query(
                "SELECT name, number, field FROM _conflict JOIN _scope ON _scope.no = scope"
                " WHERE live = 1 AND state = 'open'"
            )
            both.append({row for row in rows if row[0] in scopes})
        for _ in both[0]:
            self.count("open conflict")
        require(
            both[0] == both[1], lambda: f"I6: {one.unit} and {other.unit} have other conflicts: {both[0] ^ both[1]}"
        )


def streams_of(node: Process) -> Streams:
    columns = "origin, epoch, scope, held_seq, held_hash, applied_seq, applied_hash, state"
    rows = node.query(f"SELECT {columns} FROM _stream WHERE held_seq > 0 OR state <> 'open'")
    return {row[:3]: row[3:] for row in rows}  # type: ignore[misc]


def is_frozen(*rows: tuple[int, bytes, int, bytes, str] | None) -> bool:
    return any(row is not None and row[-1] != "open" for row in rows)


def _has_met(node: Process, other: Process) -> bool:
    """Whether a node has had a session with a neighbour in the life that it leads."""
    return bool(node.query("SELECT 1 FROM _peer WHERE unit = ? AND met_in = ?", other.unit, node.context.epoch))


def travels_on(scope: str, child: str) -> bool:
    """Whether a scope travels on a child's link, by the words of the design."""
    unit, _, kind = scope.partition("/")
    below = unit == child or unit.endswith("." + child)
    above = child.endswith("." + unit)
    return kind == "registry" or below or (kind == "catalog" and above)

"""Batches made by hand, signed with real keys: honest ones of any shape, and what only a hostile origin would seal.

``Stream(world, "phu-vang.hue.vn").batch(rows(MEMBER, ("1", 10, {"note": "x"})))`` is a signed batch that any node of
the path verifies; each next batch of a ``Stream`` follows the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.storage.certificates import judge, keep_path
from node.storage.statements import keep
from sync_engine.batch import NO_PREV, BatchHeader, SealedBatch, SectionKind, encode_batch, encode_header, parse_batch
from sync_engine.entries import Entries, encode_section, identity_of
from sync_engine.frames import Statement
from sync_engine.handover import key_hash
from sync_engine.names import parent_of
from sync_engine.registry import Registry, Table, parse_registry
from sync_engine.statements import HANDOVER, Handover, body_of
from tests.pki import EPOCH
from tests.world import World, WorldNode

PERSON: dict[str, Any] = {"full_name": "Nguyễn Văn Mẫu", "birth_date": "1950-02", "sex": "nam"}
SOMEBODY = identity_of(list(PERSON.values()))
"""The identity of that person."""

Row = tuple[str, int, Mapping[str, Any]]
"""(id, time, values by field; a union's as (added, removed))."""


def rows(table: Table, *given: Row, new: bool | Sequence[bool] = False, identity: bytes | None = None) -> Entries:
    """A section that inserts (``new``) or edits. A register is written where one of its fields is named; an insert
    writes all of them."""
    flags = [new] * len(given) if isinstance(new, bool) else list(new)
    ordered = sorted(zip(given, flags, strict=True), key=lambda each: each[0][:2])
    named = {name for (_, _, values), _ in ordered for name in values}
    kept = tuple(each for each in table.registers if any(one.name in named for one in each.fields))
    masks = [
        sum(1 << at for at, each in enumerate(kept) if flag or any(one.name in values for one in each.fields))
        for (_, _, values), flag in ordered
    ]
    entries = Entries(
        table,
        SectionKind.ROWS,
        [key for (key, _, _), _ in ordered],
        [identity or _identity(table, values, flag) for (_, _, values), flag in ordered],
        [time for (_, time, _), _ in ordered],
        registers=kept,
        masks=masks if any(mask != (1 << len(kept)) - 1 for mask in masks) else None,
        new=[flag for _, flag in ordered] if any(flags) else None,
    )
    for register in kept:
        for each in register.fields:
            values = [values.get(each.name) for (_, _, values), _ in ordered]
            if register.is_union:
                entries.columns[each.name] = [list(value[0]) if value else [] for value in values]
                entries.removed[each.name] = [list(value[1]) if value else [] for value in values]
            else:
                entries.columns[each.name] = values
    return entries


def _identity(table: Table, values: Mapping[str, Any], new: bool) -> bytes:
    return identity_of([values[each.name] for each in table.required]) if new else SOMEBODY


def deletes(table: Table, *given: tuple[str, int], identity: bytes = SOMEBODY) -> Entries:
    ordered = sorted(given)
    ids, times = [key for key, _ in ordered], [time for _, time in ordered]
    return Entries(table, SectionKind.DELETE, ids, [identity] * len(ordered), times)


@dataclass
class Stream:
    """One stream of a unit, written by hand. ``scope`` is the district's rows unless said otherwise."""

    world: World
    origin: str
    scope: str = "phu-vang.hue.vn"
    epoch: str = EPOCH
    last: SealedBatch | None = None
    registry: Registry | None = None

    def __post_init__(self) -> None:
        self.rng = Random(f"{self.origin} {self.scope}")
        self.registry = self.registry or parse_registry(self.world.registry)

    @property
    def id(self) -> StreamId:
        return StreamId(UnitPath(self.origin), Epoch(self.epoch), Scope(self.scope))

    def header(
        self, sections: Sequence[Entries], **changes: Any
    ) -> tuple[BatchHeader, tuple[Mapping[int, bytes], ...]]:
        assert self.registry is not None
        laid = [encode_section(entries, lambda: self.rng.randbytes(16)) for entries in sections]
        header = BatchHeader(
            tree_id=self.world.tree.tree_id,
            stream=self.id,
            seq=1 if self.last is None else self.last.header.seq + 1,
            prev=NO_PREV if self.last is None else self.last.head.hash,
            seen_delta=(),
            registry_version=(self.registry.version, self.registry.sha256),
            again=False,
            sections=tuple(each for each, _ in laid),
        )
        return replace(header, **changes), tuple(each for _, each in laid)

    def batch(self, *sections: Entries, seen: Iterable[Head] = (), keep: bool = True, **changes: Any) -> SealedBatch:
        """The stream's next batch. ``keep=False`` leaves the stream where it was, as a fork does."""
        header, chunks = self.header(sections, seen_delta=tuple(sorted(seen)), **changes)
        made = self.sign(encode_header(header), chunks)
        if keep:
            self.last = made
        return made

    def sign(self, header_bytes: bytes, chunks: tuple[Mapping[int, bytes], ...]) -> SealedBatch:
        signature = self.world.tree.node(self.origin, self.epoch).signer("batch", header_bytes)
        return parse_batch(encode_batch(header_bytes, signature, chunks))

    def certify(self, *nodes: WorldNode) -> Stream:
        """Give the origin's certificate to nodes, and for a later life what its first key has signed for it."""
        made, first = self.world.tree.node(self.origin, self.epoch), self.world.tree.node(self.origin, EPOCH)
        tree_id = self.world.tree.tree_id
        for node in nodes:
            with node.write() as connection:
                certified = keep_path(connection, made.path, tree_id)
                if self.epoch == EPOCH:
                    continue
                keep_path(connection, first.path, tree_id)
                said = Handover(
                    tree_id=tree_id,
                    unit=self.origin,
                    epoch=self.epoch,
                    key_sha256=key_hash(certified.public_key),
                    signer=self.origin,
                    signer_epoch=Epoch(EPOCH),
                    time_ms=self.world.now,
                )
                body = body_of(said)
                keep(connection, node.context, Statement(HANDOVER, body, first.signer(HANDOVER, body)))
                judge(connection, certified.unit)
        return self


def lone_node(world: World, unit: str = "phu-vang.hue.vn") -> WorldNode:
    """A node of the tree that knows the certificates of all units on its path."""
    node = world.node(unit)
    above = parent_of(unit)
    while above is not None:
        Stream(world, above).certify(node)
        above = parent_of(above)
    return node

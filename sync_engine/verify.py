"""Proves a batch before anything is done with it, in the protocol's order.

Role: signature against the origin's certificate, chain hashes, rights by the header's registry version.
Reach: batch, entries, certificates. Source: protocol, "Verification order". Invariant: nothing here looks at a clock
or at who delivered the bytes; the same batch is judged alike on every node.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from hashlib import sha256

from conflict.values import Hold, StreamId, level_of
from sync_engine.batch import DECISION, SealedBatch, SectionHeader, SectionKind, field_columns
from sync_engine.certificates import Certified, check_signature
from sync_engine.entries import Entries, decode_section
from sync_engine.errors import BadSignature, Malformed, NotYet, OutOfScope, WrongTree
from sync_engine.fields import rule_breaks
from sync_engine.names import is_held_by, may_write, unit_of
from sync_engine.registry import Register, Registry

PERSONAL = frozenset({"_by", DECISION})
"""Columns that tell of persons beside a row: they go to those who may read more of its table than keys."""

LEFT_OUT = "a chunk that this level may read has been left out of a batch"


def check_admissible(batch: SealedBatch, tree_id: bytes, unit: str) -> None:
    """Whether this batch may be here at all, from its header alone. Raises WrongTree or OutOfScope."""
    header = batch.header
    if header.tree_id != tree_id:
        raise WrongTree("a batch belongs to another tree")
    if not may_write(header.stream.origin, header.stream.scope):
        raise OutOfScope("a batch's origin may not write its scope")
    if not is_held_by(header.stream.scope, unit):
        raise OutOfScope("a batch's scope is outside this unit's path")
    if any(not may_write(head.stream.origin, header.stream.scope) for head in header.seen_delta):
        raise Malformed("a batch claims to have seen a stream that cannot be")


def check_signed(batch: SealedBatch, origin: Certified) -> None:
    """The header's signature is its origin's. Raises BadSignature."""
    stream = batch.header.stream
    if (origin.unit, origin.epoch) != (stream.origin, stream.epoch):
        raise BadSignature("a batch is offered with another node's certificate")
    check_signature(origin.public_key, "batch", batch.header_bytes, batch.signature)


def check_origin(batch: SealedBatch, origin: Certified) -> None:
    """The header's signature is its origin's, and the chunks are those that the header names. Raises BadSignature."""
    check_signed(batch, origin)
    check_chunks(batch)


def check_chunks(batch: SealedBatch) -> None:
    """The chunks that are here are those that the header names. Raises BadSignature."""
    for section, described in zip(batch.chunks, batch.header.sections, strict=True):
        for at, data in section.items():
            column = described.columns[at]
            if len(data) != column.compressed_size or sha256(data).digest() != column.sha256:
                raise BadSignature("a chunk's bytes are not those that its origin signed")


def check_repeats(batch: SealedBatch, former: SealedBatch, origin: Certified) -> None:
    """A batch that says again what its origin said in a former life says just that. ``former`` is the header alone.
    Raises BadSignature or Malformed."""
    mine, theirs = batch.header, former.header
    check_signed(former, origin)
    is_same = (mine.tree_id, mine.stream.origin, mine.stream.scope, mine.registry_version, mine.sections) == (
        *(theirs.tree_id, theirs.stream.origin, theirs.stream.scope),
        *(theirs.registry_version, theirs.sections),
    )
    if not is_same or mine.stream.epoch == theirs.stream.epoch or not mine.again:
        raise Malformed("a batch says that it repeats another, and says something else")


def missing(
    batch: SealedBatch, registry: Registry | None, level: int, lost: Container[bytes] = frozenset()
) -> list[bytes]:
    """The hashes of the chunks that this level may read, and that are neither here nor ``lost``.

    While the header's registry version has not come, only the row's own unit and its parent know what is theirs.
    Whoever else lacks a chunk cannot tell whether it was theirs: taken now, nobody would look again. Raises NotYet.
    """
    found, is_known = list[bytes](), True
    unit_level = level_of(unit_of(batch.header.stream.scope))
    for section, described in zip(batch.chunks, batch.header.sections, strict=True):
        table = None if registry is None else registry.all_tables.get(described.table)
        for at, column in enumerate(described.columns):
            if at in section or column.sha256 in lost:
                continue
            if column.name == DECISION and any(each not in section for each in field_columns(described)):
                continue  # it goes with the values that it is about
            name = column.name.rstrip("+-")
            if column.name in PERSONAL:
                theirs = table is not None and table.may_read_rows(level, unit_level)
            elif column.name == "id" or column.name.startswith("_"):
                theirs = True
            else:
                known = table is not None and table.has(name)
                theirs = table is not None and known and table.may_read(table.field(name), level, unit_level)
            if theirs or level >= unit_level - 1:
                found.append(column.sha256)
            is_known = registry is not None
    if not (found or is_known):
        raise NotYet(f"registry version {batch.header.registry_version[0]} must be here before this batch is taken")
    return found


def is_whole(batch: SealedBatch, registry: Registry | None, level: int) -> bool:
    """Whether no chunk is missing that a level may read, as far as the registry is here to tell."""
    try:
        return not missing(batch, registry, level)
    except NotYet:
        return True


def check_readable(batch: SealedBatch, level: int) -> None:
    """While the header's registry version has not come, a level that may not read everything cannot tell whether it may
    read what a relay has passed on. Raises NotYet: nothing of it may come near a disk."""
    fields = any(field_columns(described) & set(section) for described, section in _sections(batch))
    if fields and level < level_of(unit_of(batch.header.stream.scope)) - 1:
        raise NotYet(f"registry version {batch.header.registry_version[0]} must be here before this batch is taken")


def _sections(batch: SealedBatch) -> Iterable[tuple[SectionHeader, Mapping[int, bytes]]]:
    return zip(batch.header.sections, batch.chunks, strict=True)


def decode(batch: SealedBatch, registry: Registry) -> list[Entries]:
    """The batch's entries. ``registry`` is the header's version. Raises Malformed, OutOfScope or LimitExceeded.

    A field that the origin had no right to edit is marked, as is a value that breaks its field's rule: it enters its
    register like any other, and the table keeps its last good value.
    """
    header = batch.header
    found: list[Entries] = []
    met: set[tuple[str, int]] = set()
    for described, chunk in zip(header.sections, batch.chunks, strict=True):
        table = registry.all_tables.get(described.table)
        if table is None or not table.belongs_in(header.stream.scope):
            raise OutOfScope("a batch names a table that its scope or its registry version has not")
        if (described.table, described.kind) in met:
            raise Malformed("a batch has two sections for one table")
        met.add((described.table, described.kind))
        if not table.may_read_rows(level_of(header.stream.origin), level_of(unit_of(header.stream.scope))):
            raise OutOfScope("a batch changes rows of which its origin may know the keys only")
        entries = decode_section(described, chunk, table)
        judge(entries, header.stream)
        found.append(entries)
    return found


def judge(entries: Entries, stream: StreamId) -> None:
    """Say what of a section is held for ever: what its origin has no right to write, in the registry version of its
    batch, and values that break their field's rule."""
    level, unit_level, table = level_of(stream.origin), level_of(unit_of(stream.scope)), entries.table
    entries.barred = frozenset(
        register.name for register in table.registers if not table.may_change(register, level, unit_level)
    )
    for bit, register in enumerate(entries.registers):
        if entries.kind is not SectionKind.ROWS or register.name in entries.withheld:
            continue
        if not table.may_read(register, level, unit_level):
            _hold(entries, register, bit, Hold.RIGHT, entries.inserts_naming(register))
        for each in register.fields if not register.is_union else ():
            _hold(entries, register, bit, Hold.RULE, rule_breaks(each, entries.columns[each.name]))


def _hold(entries: Entries, register: Register, bit: int, hold: Hold, places: Iterable[int]) -> None:
    """Hold what entries write to a register, where they write it at all."""
    for at in places:
        if entries.masks is None or entries.masks[at] >> bit & 1:
            entries.broken.setdefault(register.name, {})[at] = hold

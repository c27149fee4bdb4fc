"""A section's entries in columns: what sealing fills and what verification gives back.

Role: lay entries out as a section's columns, and read them again, checked.
Reach: registry model, chunks, batch. Source: protocol, "Batch". Invariant: values here are in wire form (NFC text,
ISO dates, sets as lists), the same on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any, NamedTuple
from unicodedata import is_normalized

import msgspec

from conflict.values import TIME_MAX, Hold
from sync_engine import chunks
from sync_engine.batch import DECISION, Column, SealedBatch, SectionHeader, SectionKind
from sync_engine.errors import BadSignature, LimitExceeded, Malformed
from sync_engine.fields import check_column, column_decoder_type
from sync_engine.limits import SET_BYTES_MAX
from sync_engine.registry import FieldType, Register, Table

ID_CHARS_MAX = 200
IDENTITY_BYTES = 8
Salt = Callable[[], bytes]


class Act(StrEnum):
    """What a person decided."""

    RESOLVE = "resolve"
    OVERTURN = "overturn"
    RELEASE = "release"
    REFUSE = "refuse"
    RENAME = "rename"


class Decision(NamedTuple):
    """A person's decision, told with the edit that carries it out: about which conflict or held value, by its number,
    and why, where the person said so."""

    act: Act
    number: int
    why: str | None = None


WHY_CHARS_MAX = 500


@dataclass(slots=True)
class Entries:
    """One section, decoded. Lists are parallel, one place an entry, sorted by (id, time).

    ``registers`` are those the section has columns for, in registry order; a mask's bit i stands for the i-th of
    them, and None instead of masks means that every entry writes them all. ``columns`` maps a field to its values (a
    union to the elements added), ``removed`` a union to the elements taken away. ``withheld`` registers have a hash
    but no values here. ``barred`` registers are those that the origin has no right to edit; ``broken`` says, by
    register and place, which values are held for another reason. ``decisions`` are what persons decided with these
    entries.
    """

    table: Table
    kind: SectionKind
    ids: list[str]
    identities: list[bytes]
    times: list[int]
    registers: tuple[Register, ...] = ()
    firsts: list[int | None] | None = None
    masks: list[int] | None = None
    new: list[bool] | None = None
    by: list[str | None] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    removed: dict[str, list[list[str]]] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()
    broken: dict[str, dict[int, Hold]] = field(default_factory=dict)
    decisions: list[Decision | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def is_new(self, at: int) -> bool:
        return self.new is not None and self.new[at]

    def hold(self, register: str, at: int) -> Hold:
        """Why what entry ``at`` writes to a register is not shown. An insert may set what its origin may not edit."""
        broken = self.broken.get(register, {}).get(at, Hold.NONE)
        if broken in (Hold.NONE, Hold.CODE) and register in self.barred and not self.is_new(at):
            return Hold.RIGHT
        return broken

    def inserts_naming(self, register: Register) -> list[int]:
        """The inserts that name a value of a register, which nothing is not."""
        columns = [self.columns[each.name] for each in register.fields]
        return [
            at for at in range(len(self)) if self.is_new(at) and any(column[at] not in (None, []) for column in columns)
        ]

    def decision(self, at: int) -> Decision | None:
        return None if self.decisions is None else self.decisions[at]

    def written(self, at: int) -> Iterator[Register]:
        """The readable registers that entry ``at`` names: for an insert the others it may write are null."""
        mask = None if self.masks is None else self.masks[at]
        for bit, register in enumerate(self.registers):
            if (mask is None or mask >> bit & 1) and register.name not in self.withheld:
                yield register


def identity_of(required: Sequence[Any]) -> bytes:
    """A row's identity: start of SHA-256 over the MessagePack array of the required values its insert carried.

    Two inserts of one person under one id are one row, of two people two (design, 3).
    """
    return sha256(msgspec.msgpack.encode(list(required))).digest()[:IDENTITY_BYTES]


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(tuple[bytes, kind])


_STR, _BYTES, _INT = _decoder(list[str]), _decoder(list[bytes]), _decoder(list[int])
_INT_OR_NONE, _BOOL, _STR_OR_NONE = _decoder(list[int | None]), _decoder(list[bool]), _decoder(list[str | None])
_STRS = _decoder(list[list[str]])
_DECISIONS = _decoder(list[tuple[str, int, str | None] | None])


class _Layout:
    """Collects a section's columns, packed."""

    def __init__(self, salt: Salt) -> None:
        self.salt = salt
        self.columns: list[Column] = []
        self.chunks: dict[int, bytes] = {}

    def add(self, name: str, values: list[Any]) -> None:
        data, plain = chunks.pack(values, self.salt())
        self.chunks[len(self.columns)] = data
        self.columns.append(Column(name, sha256(data).digest(), len(data), plain))


def encode_section(entries: Entries, salt: Salt) -> tuple[SectionHeader, Mapping[int, bytes]]:
    """Pack entries into a section: its header and its chunks by column index."""
    layout = _Layout(salt)
    layout.add("id", entries.ids)
    layout.add("_identity", entries.identities)
    layout.add("_time", [entries.times[0], *(later - time for time, later in pairwise(entries.times))])
    if entries.firsts is not None:
        layout.add("_first", entries.firsts)
    if entries.masks is not None:
        width = (len(entries.registers) + 7) // 8
        layout.add("_mask", [mask.to_bytes(width, "little") for mask in entries.masks])
    if entries.new is not None:
        layout.add("_new", entries.new)
    if entries.by is not None:
        layout.add("_by", entries.by)
    if entries.decisions is not None:
        layout.add(DECISION, [each and (each.act.value, each.number, each.why) for each in entries.decisions])
    for register in entries.registers:
        for each in register.fields:
            if register.is_union:
                layout.add(each.name + "+", entries.columns[each.name])
                layout.add(each.name + "-", entries.removed[each.name])
            else:
                layout.add(each.name, entries.columns[each.name])
    header = SectionHeader(entries.table.name, entries.kind, len(entries), tuple(layout.columns))
    return header, layout.chunks


def ids_of(batch: SealedBatch) -> Iterator[tuple[str, list[str]]]:
    """The ids that a stored batch's sections speak of, by table; nothing else is unpacked. Raises Malformed or
    LimitExceeded, also where a chunk is not the one that was signed."""
    for header, chunk in zip(batch.header.sections, batch.chunks, strict=True):
        at = next((at for at, column in enumerate(header.columns) if column.name == "id"), None)
        if at is None or at not in chunk or sha256(chunk[at]).digest() != header.columns[at].sha256:
            raise Malformed("a section's ids are not here as its origin signed them")
        yield header.table, chunks.unpack(chunk[at], header.columns[at].plain_size, header.rows, _STR)


def decode_section(header: SectionHeader, chunk: Mapping[int, bytes], table: Table) -> Entries:
    """A verified section's entries. ``table`` is the header's registry version's. Raises Malformed, LimitExceeded,
    and BadSignature for a chunk that nobody may withhold and that is not there."""
    reader = _Reader(header, chunk)
    ids = reader.meta("id", _STR)
    _check_ids(ids)
    identities = reader.meta("_identity", _BYTES)
    if any(len(identity) != IDENTITY_BYTES for identity in identities):
        raise Malformed("a row identity is not 8 bytes long")
    times = list(accumulate(reader.meta("_time", _INT)))
    _check_times(ids, identities, times)
    kind = SectionKind(header.kind)
    by = reader.values("_by", _STR_OR_NONE) if "_by" in reader.places else None  # withheld with its table
    entries = Entries(table, kind, ids, identities, times, by=by)
    if entries.by is not None and any("\0" in each for each in entries.by if each):
        raise Malformed("a column _by holds a NUL")
    entries.decisions = _read_decisions(reader)
    if kind is SectionKind.DELETE:
        reader.done()
        return entries
    entries.firsts = reader.optional("_first", _INT_OR_NONE)
    masks = reader.optional("_mask", _BYTES)
    entries.new = reader.optional("_new", _BOOL)
    entries.registers = tuple(register for register in table.registers if reader.names_any(register))
    if masks is not None:
        width = (len(entries.registers) + 7) // 8
        if any(len(mask) != width for mask in masks):
            raise Malformed("a mask does not fit its section's registers")
        entries.masks = [int.from_bytes(mask, "little") for mask in masks]
        if max(entries.masks) >> len(entries.registers):
            raise Malformed("a mask names a register that its section has not")
    entries.withheld = frozenset(_read_register(reader, entries, register) for register in entries.registers) - {""}
    if entries.decisions is not None and len({register.read_up_to for register in entries.registers}) > 1:
        raise Malformed("a section with decisions has registers that different levels read")
    reader.done()
    return entries


def _read_decisions(reader: _Reader) -> list[Decision | None] | None:
    """None as well where the column is withheld, as what was decided about is."""
    told = reader.values(DECISION, _DECISIONS) if DECISION in reader.places else None
    if told is None:
        return None
    if any(each and (each[0] not in set(Act) or not 0 <= each[1] < 2**48) for each in told):
        raise Malformed("a decision of an unknown kind, or about no number")
    whys = [each[2] for each in told if each and each[2]]
    if any(len(why) > WHY_CHARS_MAX or "\0" in why or not is_normalized("NFC", why) for why in whys):
        raise Malformed("the reason of a decision is too long or not NFC, or holds a NUL")
    return [each and Decision(Act(each[0]), each[1], each[2]) for each in told]


def _read_register(reader: _Reader, entries: Entries, register: Register) -> str:
    """Read one register's columns; returns its name if they are withheld, else an empty string."""
    withheld = False
    for each in register.fields:
        if register.is_union:
            reader.check_set(each.name + "+")
            reader.check_set(each.name + "-")
            added, removed = reader.values(each.name + "+", _STRS), reader.values(each.name + "-", _STRS)
            if added is None or removed is None:
                withheld = True
                continue
            check_column(each, added)
            check_column(each, removed)
            entries.columns[each.name], entries.removed[each.name] = added, removed
        else:
            if each.type is FieldType.SET:
                reader.check_set(each.name)
            values = reader.values(each.name, _decoder(column_decoder_type(each)))
            if values is None:
                withheld = True
                continue
            check_column(each, values)
            if each.type is FieldType.SET and [] in values:
                raise Malformed(f"column {each.name} has an empty set, which is written as nothing")
            entries.columns[each.name] = values
    return register.name if withheld else ""


class _Reader:
    """Takes a section's columns by name and complains of what is missing or left over."""

    def __init__(self, header: SectionHeader, chunk: Mapping[int, bytes]) -> None:
        self.places = {column.name: at for at, column in enumerate(header.columns)}
        self.header, self.chunk = header, chunk
        self.left = set(self.places)

    def names_any(self, register: Register) -> bool:
        suffix = "+" if register.is_union else ""
        return any(each.name + suffix in self.places for each in register.fields)

    def values(self, name: str, decoder: msgspec.msgpack.Decoder[Any]) -> list[Any] | None:
        """The column's values, or None where its chunk is withheld."""
        at = self.places.get(name)
        if at is None:
            raise Malformed("a section lacks a column")
        self.left.discard(name)
        data = self.chunk.get(at)
        if data is None:
            return None
        return chunks.unpack(data, self.header.columns[at].plain_size, self.header.rows, decoder)

    def check_set(self, name: str) -> None:
        at = self.places.get(name)
        if at is not None and self.header.columns[at].plain_size > SET_BYTES_MAX:
            raise LimitExceeded("a column of sets is too large")

    def meta(self, name: str, decoder: msgspec.msgpack.Decoder[Any]) -> list[Any]:
        values = self.values(name, decoder)
        if values is None:
            raise BadSignature("a column that is never withheld has been left out of a batch")
        return values

    def optional(self, name: str, decoder: msgspec.msgpack.Decoder[Any]) -> list[Any] | None:
        return self.meta(name, decoder) if name in self.places else None

    def done(self) -> None:
        if self.left:
            raise Malformed("a section has columns that its registry version does not know")


def _check_ids(ids: list[str]) -> None:
    joined = "\n".join(ids)  # a line break is a starter, so no two ids compose across it
    if any(not 0 < len(each) <= ID_CHARS_MAX for each in ids) or "\0" in joined or not is_normalized("NFC", joined):
        raise Malformed("an id is empty, too long or not NFC, or holds a NUL")


def _check_times(ids: list[str], identities: list[bytes], times: list[int]) -> None:
    """Entries sort by (id, time), so that folding a batch needs no second look; a time fits 63 bits."""
    if not 0 <= min(times) <= max(times) <= TIME_MAX:
        raise Malformed("a time is outside 0 to 2^63-1")
    keys = list(zip(ids, times, identities, strict=True))
    if any(one >= other for one, other in pairwise(keys)):
        raise Malformed("entries are not sorted by id and time")

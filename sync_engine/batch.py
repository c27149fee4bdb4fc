"""The batch as bytes: header, signature, sections. Encoded once, by its origin; kept and forwarded as received.

Role: encode a header; parse a header and a batch, bounded; leave out chunks that a level may not read.
Reach: the generated protobuf, conflict.values. Invariant: nothing here re-encodes a header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from dongbo.v1 import batch_pb2
from google.protobuf.message import DecodeError

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from sync_engine import limits
from sync_engine.errors import BadName, LimitExceeded, Malformed
from sync_engine.names import check_scope, check_unit
from sync_engine.wire import guard

FORMAT = 1
NO_PREV = bytes(32)
"""``prev`` of a stream's first batch."""
DECISION = "_decision"
"""The column of decisions. Its words may be about the values beside it, so it goes to those who may read them all."""


class SectionKind(IntEnum):
    """What a section's entries do."""

    ROWS = batch_pb2.SECTION_KIND_ROWS
    DELETE = batch_pb2.SECTION_KIND_DELETE


@dataclass(frozen=True, slots=True)
class Column:
    """A column's place in the header: the hash stays when the chunk is withheld."""

    name: str
    sha256: bytes
    compressed_size: int
    plain_size: int


@dataclass(frozen=True, slots=True)
class SectionHeader:
    """One table's entries of one kind."""

    table: str
    kind: int
    rows: int
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of the batches from ``from_seq`` on that were sealed under the origin's brake. ``undone``: the
    (table, register) that were changed back, so that what those batches wrote there is never shown; empty where they
    were released."""

    from_seq: int
    undone: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What an origin signs. ``registry_version`` is (number, SHA-256 of the TOML). ``braked``: it waits at its
    receivers for a later batch of its stream that ``settles`` it."""

    tree_id: bytes
    stream: StreamId
    seq: int
    prev: bytes
    seen_delta: tuple[Head, ...]
    registry_version: tuple[int, bytes]
    again: bool
    sections: tuple[SectionHeader, ...]
    braked: bool = False
    settles: Settlement | None = None
    repeats: tuple[bytes, bytes] | None = None
    """(header, signature) of a batch of a former life whose place in its stream another one has: this one says the
    same again. Its ``seen_delta`` is all that the former one had seen, and stands alone."""

    @property
    def entries(self) -> int:
        return sum(section.rows for section in self.sections)


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A batch as it is stored and travels. ``chunks`` has, per section, column index -> compressed bytes."""

    data: bytes
    header_bytes: bytes
    signature: bytes
    header: BatchHeader
    chunks: tuple[Mapping[int, bytes], ...]

    @property
    def head(self) -> Head:
        return Head(self.header.stream, self.header.seq, sha256(self.header_bytes).digest())


def epoch_to_wire(epoch: str) -> int:
    return int(epoch, 16)


def epoch_from_wire(number: int) -> Epoch:
    return Epoch(f"{number:016x}")


def head_to_wire(head: Head) -> batch_pb2.Head:
    return batch_pb2.Head(
        origin=head.stream.origin, epoch=epoch_to_wire(head.stream.epoch), seq=head.seq, hash=head.hash
    )


def head_from_wire(message: batch_pb2.Head, scope: str) -> Head:
    """Raises Malformed."""
    try:
        origin = check_unit(message.origin)
    except BadName as error:
        raise Malformed("a head names no unit") from error
    if not 1 <= message.seq < 2**62 or len(message.hash) != 32:
        raise Malformed("a head has no number or no hash")
    return Head(StreamId(origin, epoch_from_wire(message.epoch), Scope(scope)), message.seq, bytes(message.hash))


def encode_header(header: BatchHeader) -> bytes:
    """The bytes to sign: done once in a batch's life."""
    number, digest = header.registry_version
    return batch_pb2.BatchHeader(
        tree_id=header.tree_id,
        format=FORMAT,
        origin=header.stream.origin,
        epoch=epoch_to_wire(header.stream.epoch),
        scope=header.stream.scope,
        seq=header.seq,
        prev=header.prev,
        seen_delta=[head_to_wire(head) for head in header.seen_delta],
        registry_version=batch_pb2.RegistryVersion(number=number, sha256=digest),
        again=header.again,
        sections=[
            batch_pb2.SectionHeader(
                table=section.table,
                kind=batch_pb2.SectionKind.Name(section.kind),
                rows=section.rows,
                columns=[
                    batch_pb2.Column(
                        name=column.name,
                        sha256=column.sha256,
                        compressed_size=column.compressed_size,
                        plain_size=column.plain_size,
                    )
                    for column in section.columns
                ],
            )
            for section in header.sections
        ],
        braked=header.braked,
        settles=None if header.settles is None else _settlement_to_wire(header.settles),
        repeats_header=b"" if header.repeats is None else header.repeats[0],
        repeats_signature=b"" if header.repeats is None else header.repeats[1],
    ).SerializeToString()


def _settlement_to_wire(settles: Settlement) -> batch_pb2.Settlement:
    undone = [batch_pb2.Undone(table=table, register=register) for table, register in sorted(settles.undone)]
    return batch_pb2.Settlement(from_seq=settles.from_seq, undone=undone)


def _settlement_from_wire(header: batch_pb2.BatchHeader) -> Settlement | None:
    if not header.HasField("settles"):
        return None
    settles = header.settles
    if header.braked or not 1 <= settles.from_seq < header.seq:
        raise Malformed("a batch settles what does not come before it")
    return Settlement(settles.from_seq, frozenset((each.table, each.register) for each in settles.undone))


def parse_header(data: bytes) -> BatchHeader:
    """Raises Malformed or LimitExceeded; the tree, the chain and the signature are judged elsewhere."""
    if len(data) > limits.HEADER_BYTES_MAX:
        raise LimitExceeded("a batch header is too large")
    once = dict.fromkeys((1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13, 14, 15), 1)
    spans = guard(data, {**once, 8: limits.SEEN_MAX, 11: limits.SECTIONS_MAX})
    for start, end in spans[13]:
        guard(data[start:end], {1: 1, 2: limits.UNDONE_MAX})
    columns = sum(len(guard(data[a:b], {1: 1, 2: 1, 3: 1, 4: limits.COLUMNS_MAX})[4]) for a, b in spans[11])
    if columns > limits.COLUMNS_TOTAL_MAX:
        raise LimitExceeded("a batch header names too many columns")
    try:
        message = batch_pb2.BatchHeader.FromString(data)
    except DecodeError as error:
        raise Malformed("a batch header does not parse") from error
    if message.format != FORMAT:
        raise Malformed(f"a batch is of format {message.format}; this node knows format {FORMAT}")
    try:
        stream = StreamId(check_unit(message.origin), epoch_from_wire(message.epoch), check_scope(message.scope))
    except BadName as error:
        raise Malformed("a batch header names no unit or scope") from error
    if not 1 <= message.seq < 2**62 or len(message.prev) != 32 or len(message.tree_id) != 32:
        raise Malformed("a batch header lacks its number, its chain or its tree")
    if (message.seq == 1) != (message.prev == NO_PREV):
        raise Malformed("only a stream's first batch has nothing before it")
    version = (message.registry_version.number, bytes(message.registry_version.sha256))
    if version[0] >= 2**62:
        raise Malformed("a batch header names a registry version beyond all")
    header = BatchHeader(
        tree_id=bytes(message.tree_id),
        stream=stream,
        seq=message.seq,
        prev=bytes(message.prev),
        seen_delta=tuple(head_from_wire(head, stream.scope) for head in message.seen_delta),
        registry_version=version,
        again=message.again,
        sections=tuple(_section_from_wire(section) for section in message.sections),
        braked=message.braked,
        settles=_settlement_from_wire(message),
        repeats=(message.repeats_header, message.repeats_signature) if message.repeats_header else None,
    )
    _check_sizes(header)
    return header


def _section_from_wire(section: batch_pb2.SectionHeader) -> SectionHeader:
    if int(section.kind) not in (int(SectionKind.ROWS), int(SectionKind.DELETE)):
        raise Malformed("a section is neither of rows nor of deletes")
    columns = tuple(
        Column(column.name, bytes(column.sha256), column.compressed_size, column.plain_size)
        for column in section.columns
    )
    if len({column.name for column in columns}) != len(columns):
        raise Malformed("a section names a column twice")
    return SectionHeader(section.table, section.kind, section.rows, columns)


def _check_sizes(header: BatchHeader) -> None:
    plain = sum(column.plain_size for section in header.sections for column in section.columns)
    packed = sum(column.compressed_size for section in header.sections for column in section.columns)
    if (
        header.entries > limits.ENTRIES_MAX
        or (header.entries < 1 and header.settles is None and header.repeats is None)
        or any(not section.rows for section in header.sections)
    ):
        raise LimitExceeded(f"a batch holds 1 to {limits.ENTRIES_MAX} entries and no empty section")
    if plain > limits.PLAIN_BYTES_MAX or packed > limits.BATCH_BYTES_MAX:
        raise LimitExceeded("a batch's header announces more bytes than a batch may hold")


def encode_batch(header_bytes: bytes, signature: bytes, chunks: tuple[Mapping[int, bytes], ...]) -> bytes:
    """Put a sealed batch together."""
    return batch_pb2.Batch(
        header=header_bytes,
        signature=signature,
        sections=[
            batch_pb2.Section(chunks=[batch_pb2.Chunk(column=at, data=data) for at, data in section.items()])
            for section in chunks
        ],
    ).SerializeToString()


def parse_batch(data: bytes) -> SealedBatch:
    """Raises Malformed or LimitExceeded. Signature and chunk hashes are checked in ``verify``."""
    if len(data) > limits.FRAME_BYTES_MAX:
        raise LimitExceeded("a batch is too large")
    spans = guard(data, {1: 1, 2: 1, 3: limits.SECTIONS_MAX})
    for start, end in spans[3]:
        guard(data[start:end], {1: limits.COLUMNS_MAX})
    try:
        message = batch_pb2.Batch.FromString(data)
    except DecodeError as error:
        raise Malformed("a batch does not parse") from error
    header = parse_header(message.header)
    if len(message.sections) != len(header.sections):
        raise Malformed("a batch's sections are not those its header names")
    chunks = []
    for section, described in zip(message.sections, header.sections, strict=True):
        found = {chunk.column: chunk.data for chunk in section.chunks}
        if len(found) != len(section.chunks) or any(at >= len(described.columns) for at in found):
            raise Malformed("a section holds a chunk that its header does not name")
        chunks.append(found)
    return SealedBatch(data, message.header, message.signature, header, tuple(chunks))


def field_columns(described: SectionHeader) -> set[int]:
    """Which columns of a section are fields: the others are its key and what describes its entries."""
    return {at for at, each in enumerate(described.columns) if each.name != "id" and not each.name.startswith("_")}


def withhold(batch: SealedBatch, may_read: Callable[[str, str], bool]) -> bytes:
    """The batch's bytes for a receiver: chunks of (table, column) that it may not read are left out.

    Header and signature stay as they are, so the origin's signature still holds. Bytes are passed on untouched when
    nothing has to be left out.
    """
    kept = []
    for section, described in zip(batch.chunks, batch.header.sections, strict=True):
        hidden = {at for at, each in enumerate(described.columns) if not may_read(described.table, each.name)}
        if hidden & field_columns(described):
            hidden |= {at for at, each in enumerate(described.columns) if each.name == DECISION}
        kept.append({at: data for at, data in section.items() if at not in hidden})
    if all(len(after) == len(before) for after, before in zip(kept, batch.chunks, strict=True)):
        return batch.data
    return encode_batch(batch.header_bytes, batch.signature, tuple(kept))


def origin_of(data: bytes) -> tuple[UnitPath, Epoch]:
    """Origin and epoch of a batch whose header has not been verified: for log lines only."""
    header = parse_batch(data).header
    return header.stream.origin, header.stream.epoch

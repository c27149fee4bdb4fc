"""What two nodes say to each other, as values and as bytes.

Role: encode and decode the frames of one session, bounded.
Reach: the generated protobuf, batch. Source: protocol, "Exchange".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dongbo.v1 import batch_pb2, sync_pb2
from google.protobuf.message import DecodeError

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from sync_engine import limits
from sync_engine.batch import epoch_from_wire, epoch_to_wire, head_from_wire, head_to_wire
from sync_engine.errors import BadName, LimitExceeded, Malformed
from sync_engine.names import check_scope, check_unit
from sync_engine.wire import guard

MAJOR, MINOR = 1, 0

TIME_MS_MAX = 2**48 - 1
"""A peer's clock is cut to what a time may be: it informs, so even nonsense is no reason to refuse."""

HASH_BYTES = 32
BATCH_TAG = bytes([4 << 3 | 2])

CHAIN_MAX = 100_000
"""Hashes of one chain: three megabytes. Two lives that part farther back than this need a person."""

Heads: TypeAlias = Mapping[StreamId, Head]
"""Per stream the last contiguous verified batch stored."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame, both ways. ``time_ms`` informs about clocks and decides nothing."""

    unit: UnitPath
    epoch: Epoch
    tree_id: bytes
    certificate_sha256: bytes
    registry_version: tuple[int, bytes]
    time_ms: int
    nonce: bytes
    digest: bytes
    software: str
    major: int = MAJOR
    minor: int = MINOR


@dataclass(frozen=True, slots=True)
class HeadsFrame:
    """``statements`` has, by scope, a digest of the statements held; ``unconfirmed`` the scopes for whose heads the
    speaker has no receipt of the other's."""

    heads: tuple[Head, ...]
    statements: tuple[tuple[Scope, bytes], ...] = ()
    unconfirmed: frozenset[Scope] = frozenset()


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths in DER, each leaf first and root last."""

    paths: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class BatchFrame:
    """A batch as its origin made it, opaque here."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """Durable at the receiver: committed and synced."""

    heads: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class Credit:
    """How many bytes of batches the other may have sent in this session, all told."""

    total_bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A signed batch that breaks a rule: its stream is left for this session, the others go on."""

    head: Head
    reason: str


@dataclass(frozen=True, slots=True)
class ForkProof:
    """Two signed headers at one place of one stream: (header, signature) each."""

    first: tuple[bytes, bytes]
    second: tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Chain:
    """The hashes of a stream's batches as the speaker holds them, from number ``first`` on without gaps."""

    stream: StreamId
    first: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """Batches that the speaker holds and whose stored bytes are damaged: to be sent again, whatever its heads say. It
    comes before the heads, so that whoever answers knows of it when it begins to ship."""

    heads: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What one node signed for all whom it concerns, opaque here."""

    tag: str
    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Statements:
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the speaker holds, signed for the other; opaque here."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Everything the speaker had to send has been sent."""


Frame: TypeAlias = (
    Hello
    | HeadsFrame
    | Certificates
    | BatchFrame
    | Ack
    | Credit
    | Refusal
    | ForkProof
    | Chain
    | Want
    | Statements
    | Receipt
    | Done
)


def scopes_to_wire(heads: Iterable[Head]) -> list[sync_pb2.ScopeHeads]:
    """Heads as they travel, scope by scope."""
    by_scope: dict[str, list[Head]] = {}
    for head in sorted(heads):
        by_scope.setdefault(head.stream.scope, []).append(head)
    return [
        sync_pb2.ScopeHeads(scope=scope, heads=[head_to_wire(head) for head in group])
        for scope, group in by_scope.items()
    ]


def encode(frame: Frame) -> bytes:
    """The frame's bytes."""
    return _to_wire(frame).SerializeToString()


def statement_to_wire(statement: Statement) -> sync_pb2.Statement:
    return sync_pb2.Statement(tag=statement.tag, body=statement.body, signature=statement.signature)


def statement_from_wire(wire: sync_pb2.Statement) -> Statement:
    return Statement(wire.tag, wire.body, wire.signature)


def is_batch(data: bytes) -> bool:
    """Whether a frame's bytes are a batch's, without reading it: the tag of ``Frame.batch``."""
    return data[:1] == BATCH_TAG


def _to_wire(frame: Frame) -> sync_pb2.Frame:
    match frame:
        case Hello():
            return sync_pb2.Frame(hello=_hello_to_wire(frame))
        case HeadsFrame(heads, statements, unconfirmed):
            return sync_pb2.Frame(heads=sync_pb2.Heads(scopes=_heads_to_wire(heads, statements, unconfirmed)))
        case Certificates(paths):
            wire = [sync_pb2.CertificatePath(certificates=path) for path in paths]
            return sync_pb2.Frame(certificates=sync_pb2.Certificates(paths=wire))
        case BatchFrame(data):
            return sync_pb2.Frame(batch=data)
        case Ack(heads):
            return sync_pb2.Frame(ack=sync_pb2.Ack(scopes=scopes_to_wire(heads)))
        case Credit(total):
            return sync_pb2.Frame(credit=sync_pb2.Credit(bytes=total))
        case Refusal(head, reason):
            refusal = sync_pb2.Refusal(scope=head.stream.scope, head=head_to_wire(head), reason=reason)
            return sync_pb2.Frame(refusal=refusal)
        case ForkProof((header, signature), (other, other_signature)):
            proof = sync_pb2.ForkProof(
                first_header=header,
                first_signature=signature,
                second_header=other,
                second_signature=other_signature,
            )
            return sync_pb2.Frame(fork=proof)
        case Chain(stream, first, hashes):
            chain = sync_pb2.Chain(
                scope=stream.scope,
                origin=stream.origin,
                epoch=epoch_to_wire(stream.epoch),
                from_seq=first,
                hashes=b"".join(hashes),
            )
            return sync_pb2.Frame(chain=chain)
        case Want(heads):
            return sync_pb2.Frame(want=sync_pb2.Want(scopes=scopes_to_wire(heads)))
        case Statements(statements):
            told = map(statement_to_wire, statements)
            return sync_pb2.Frame(statements=sync_pb2.Statements(statements=told))
        case Receipt(body, signature):
            return sync_pb2.Frame(receipt=sync_pb2.Receipt(body=body, signature=signature))
        case Done():
            return sync_pb2.Frame(done=sync_pb2.Done())


def _heads_to_wire(
    heads: Iterable[Head], statements: Iterable[tuple[Scope, bytes]], unconfirmed: Iterable[Scope]
) -> list[sync_pb2.ScopeHeads]:
    scopes = {each.scope: each for each in scopes_to_wire(heads)}
    for scope, digest in statements:
        scopes.setdefault(scope, sync_pb2.ScopeHeads(scope=scope)).statements = digest
    for scope in sorted(unconfirmed):
        scopes.setdefault(scope, sync_pb2.ScopeHeads(scope=scope)).unconfirmed = True
    return list(scopes.values())


def _hello_to_wire(hello: Hello) -> sync_pb2.Hello:
    return sync_pb2.Hello(
        major=hello.major,
        minor=hello.minor,
        software=hello.software,
        tree_id=hello.tree_id,
        node_certificate_sha256=hello.certificate_sha256,
        unit=hello.unit,
        epoch=epoch_to_wire(hello.epoch),
        registry_version=batch_pb2.RegistryVersion(number=hello.registry_version[0], sha256=hello.registry_version[1]),
        time=hello.time_ms,
        nonce=hello.nonce,
        digest=hello.digest,
    )


def decode(data: bytes) -> Frame | None:
    """The frame, or None for one of a newer minor version, to be passed over. Raises Malformed or LimitExceeded."""
    if len(data) > limits.FRAME_BYTES_MAX:
        raise LimitExceeded("a frame is too large")
    spans = guard(data, dict.fromkeys(range(1, 14), 1))
    if sum(len(found) for found in spans.values()) > 1:
        raise Malformed("a frame says two things")
    for number in (2, 5, 12):  # heads, ack and want: lists of lists
        for start, end in spans[number]:
            guard_scopes(data[start:end])
    for start, end in spans[3]:
        for a, b in guard(data[start:end], {1: limits.CERTIFICATES_MAX})[1]:
            guard(data[start + a : start + b], {1: 32})
    for start, end in spans[9]:
        guard(data[start:end], {1: 1, 2: 1})
    for start, end in spans[13]:
        for a, b in guard(data[start:end], {1: limits.STATEMENTS_MAX})[1]:
            _guard_statement(data[start + a : start + b])
    try:
        wire = sync_pb2.Frame.FromString(data)
    except DecodeError as error:
        raise Malformed("a frame does not parse") from error
    try:
        return _from_wire(wire)
    except BadName as error:
        raise Malformed("a frame names no unit or scope") from error


def _guard_statement(data: bytes) -> None:
    guard(data, {1: 1, 2: 1, 3: 1})
    if len(data) > limits.STATEMENT_BYTES_MAX:
        raise LimitExceeded("a statement is too large")


def guard_scopes(data: bytes, number: int = 1) -> None:
    """Check lists of heads, each a scope's, in the field ``number`` of a message, before it is parsed."""
    heads = 0
    for start, end in guard(data, {number: limits.SCOPES_MAX})[number]:
        heads += len(guard(data[start:end], {1: 1, 2: limits.HEADS_MAX, 3: 1, 4: 1})[2])
        if heads > limits.HEADS_MAX:
            raise LimitExceeded("a frame holds too many heads")


def _from_wire(wire: sync_pb2.Frame) -> Frame | None:
    match wire.WhichOneof("kind"):
        case "hello":
            return _hello_from_wire(wire.hello)
        case "heads":
            scopes = wire.heads.scopes
            return HeadsFrame(
                heads_from_wire(scopes),
                tuple((check_scope(each.scope), each.statements[:32]) for each in scopes if each.statements),
                frozenset(check_scope(each.scope) for each in scopes if each.unconfirmed),
            )
        case "certificates":
            return Certificates(tuple(tuple(path.certificates) for path in wire.certificates.paths))
        case "batch":
            return BatchFrame(wire.batch)
        case "ack":
            return Ack(heads_from_wire(wire.ack.scopes))
        case "credit":
            return Credit(wire.credit.bytes)
        case "refusal":
            return Refusal(
                head_from_wire(wire.refusal.head, check_scope(wire.refusal.scope)), wire.refusal.reason[:500]
            )
        case "fork":
            fork = wire.fork
            return ForkProof((fork.first_header, fork.first_signature), (fork.second_header, fork.second_signature))
        case "chain":
            return _chain_from_wire(wire.chain)
        case "want":
            return Want(_heads_in(wire.want.scopes))
        case "statements":
            return Statements(tuple(map(statement_from_wire, wire.statements.statements)))
        case "receipt":
            return Receipt(wire.receipt.body, wire.receipt.signature)
        case "done":
            return Done()
        case _:
            return None


def _chain_from_wire(chain: sync_pb2.Chain) -> Chain:
    raw = chain.hashes
    if len(raw) % HASH_BYTES or not 1 <= chain.from_seq < 2**62:
        raise Malformed("a chain is no row of hashes")
    stream = StreamId(check_unit(chain.origin), epoch_from_wire(chain.epoch), check_scope(chain.scope))
    hashes = tuple(raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES))
    return Chain(stream, chain.from_seq, hashes)


def heads_from_wire(scopes: Iterable[sync_pb2.ScopeHeads]) -> tuple[Head, ...]:
    """Raises Malformed or BadName."""
    heads = _heads_in(scopes)
    if len({head.stream for head in heads}) != len(heads):
        raise Malformed("a frame names two heads of one stream")
    return heads


def _heads_in(scopes: Iterable[sync_pb2.ScopeHeads]) -> tuple[Head, ...]:
    """As they were before the wire laid them out scope by scope."""
    heads = (head_from_wire(head, Scope(check_scope(scope.scope))) for scope in scopes for head in scope.heads)
    return tuple(sorted(heads))


def _hello_from_wire(hello: sync_pb2.Hello) -> Hello:
    return Hello(
        unit=check_unit(hello.unit),
        epoch=epoch_from_wire(hello.epoch),
        tree_id=hello.tree_id,
        certificate_sha256=hello.node_certificate_sha256,
        registry_version=(hello.registry_version.number, hello.registry_version.sha256),
        time_ms=max(0, min(hello.time, TIME_MS_MAX)),
        nonce=hello.nonce[:64],
        digest=hello.digest,
        software=hello.software[:100],
        major=hello.major,
        minor=hello.minor,
    )

"""Whole conversations: frames of a hostile child in any order, heard by one real node.

Role: perform what the exchange names as the service does, and watch that every ack speaks of what is stored.
Reach: sync_engine.exchange, node.storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random

from sqlalchemy import Connection

from conflict.values import UnitPath
from node.storage import peers
from node.storage.batches import hash_at, lacking
from node.storage.certificates import keep_path
from node.storage.inbox import Taken, refuse, take, take_proof
from node.storage.outbox import batch_beside, branch_from, chain_of, hello_of
from node.storage.proving import verify
from node.storage.receipts import draw, keep
from node.storage.statements import keep_all
from node.storage.streams import find_stream
from sync_engine.batch import parse_batch
from sync_engine.branches import ShipBranch, TellChain
from sync_engine.errors import BadCertificate, BadSignature, RemoteFault, ReplicationError, RuleBroken
from sync_engine.exchange import (
    Effect,
    Exchange,
    Finish,
    PeerForked,
    PeerMet,
    Prove,
    Send,
    Ship,
    Store,
    StoreCertificates,
)
from sync_engine.frames import Ack, BatchFrame, HeadsFrame, Hello, decode, encode
from sync_engine.telling import KeepReceipt, KeepStatements, SignReceipt
from tests.hostile import forged, surgery, unsigned
from tests.hostile.corpus import ABOVE, CHILD, Corpus
from tests.hostile.unsigned import Mutant
from tests.world import WorldNode


class Talk:
    """One side of a session: the parent's."""

    def __init__(self, node: WorldNode, connection: Connection, child: str) -> None:
        self.node, self.connection, self.child = node, connection, child
        hello, held = hello_of(connection, node.context, UnitPath(child), b"p" * 32)
        self.exchange = Exchange(hello, held, child=UnitPath(child), peer=UnitPath(child))
        self.wrong = ""
        self.acks = self.sent_bytes = self.finished = 0

    def hear(self, frames: Sequence[bytes]) -> str:
        """The frames one after another, as ``Session`` does; ends with the first fault."""
        try:
            self.perform(self.exchange.start())
            for data in frames:
                frame = decode(data)
                if frame is not None:
                    self.perform(self.exchange.on_frame(frame))
        except ReplicationError as fault:
            return f"ended: {fault.code}"
        return "heard to the end" if self.acks else "heard, nothing stored"

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(frame):
                    self.sent_bytes += len(encode(frame))
                    if isinstance(frame, Ack):
                        self._check_ack(frame)
                case Store(data):
                    self._store(data)
                case StoreCertificates(paths):
                    self._keep(paths)
                case Ship(scopes):
                    for spans in scopes:
                        lacking(self.connection, spans)
                    self.perform(self.exchange.on_shipped())
                case KeepStatements() | SignReceipt() | KeepReceipt():
                    self._tell(effect)
                case PeerForked(theirs):
                    batch_beside(self.connection, theirs)
                case Prove(proof):
                    with suppress(RemoteFault):
                        take_proof(self.connection, self.node.context, proof)
                case PeerMet(hello):
                    skew_ms = hello.time_ms - self.node.context.now_ms()
                    peers.note_met(self.connection, UnitPath(self.child), skew_ms, hello.epoch)
                case Finish():
                    self.finished += 1
                case _:
                    self._show_chains(effect)

    def _show_chains(self, effect: Effect) -> None:
        match effect:
            case ShipBranch(chain):
                branch_from(self.connection, chain)
                self.perform(self.exchange.on_branch_shipped(chain.stream))
            case TellChain(stream):
                if (chain := chain_of(self.connection, stream)) is not None:
                    self.exchange.branches.on_chain_told()
                    self.perform([Send(chain)])

    def _keep(self, paths: tuple[tuple[bytes, ...], ...]) -> None:
        for path in paths:
            with suppress(BadCertificate, RemoteFault):
                keep_path(self.connection, path, self.node.context.tree_id)

    def _tell(self, effect: KeepStatements | SignReceipt | KeepReceipt) -> None:
        hello, child, context = self.exchange.peer_hello, UnitPath(self.child), self.node.context
        match effect:
            case KeepStatements(statements):
                keep_all(self.connection, context, statements)
            case SignReceipt(scopes):
                self.sent_bytes += len(draw(self.connection, context, child, child, scopes).body)
                self.perform(self.exchange.on_receipt_sent())
            case KeepReceipt(receipt) if hello is not None:
                with suppress(RemoteFault):
                    keep(self.connection, context, child, (child, hello.epoch), receipt)
                self.perform(self.exchange.on_receipt_kept())

    def _check_ack(self, ack: Ack) -> None:
        self.acks += 1
        for head in ack.heads:
            row = find_stream(self.connection, head.stream)
            if row is None or hash_at(self.connection, row.no, head.seq) != head.hash:
                self.wrong = f"an ack of {head.stream} {head.seq}, which is not stored"

    def _store(self, data: bytes) -> None:
        try:
            verified = verify(self.connection, self.node.context, data)
        except RuleBroken as fault:
            refuse(self.connection, fault)
            self.perform(self.exchange.on_refused(fault.head, str(fault), len(data)))
            return
        except (BadSignature, BadCertificate) as fault:
            self.perform(self.exchange.on_refused(parse_batch(data).head, str(fault), len(data)))
            return
        outcome = take(self.connection, self.node.context, verified)
        if outcome.taken in (Taken.FROZEN, Taken.FORKED, Taken.OWN):
            self.perform(self.exchange.on_refused(verified.batch.head, "frozen", len(data)))
        else:
            self.perform(self.exchange.on_stored(outcome.held, len(data)))


# --- what a hostile child says ---------------------------------------------------------------------------------------


def conversation(corpus: Corpus, rng: Random) -> Mutant:
    """Real frames in a likely order, then spoiled: some mutated, doubled, moved, or quite other ones put in."""
    frames = [corpus.frames["hello"], corpus.frames["heads"], corpus.frames["credit"], corpus.frames["certificates"]]
    frames += [encode(BatchFrame(batch.data)) for batch in corpus.fresh[ABOVE]]
    frames += [corpus.frames["ack"], corpus.frames["done"]]
    if rng.random() < 0.15:
        frames[0] = encode(odd_hello(corpus, rng))
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(frames))
        match rng.randrange(7):
            case 0:
                frames[at] = unsigned.of_frame("x", rng.choice(list(unsigned.CHANGES.values())), corpus, rng).data
            case 1:
                frames.insert(at, frames[at])
            case 2:
                frames.insert(at, frames.pop(rng.randrange(len(frames))))
            case 3:
                frames.insert(at, odd_frame(corpus, rng))
            case 4:
                mutant = rng.choice(list(forged.MAKERS.values()))(corpus, rng)
                frames.insert(at, encode(BatchFrame(mutant.data)))
            case 5:
                del frames[at]
                frames = frames or [odd_frame(corpus, rng)]
            case 6:
                change = rng.choice(list(surgery.SPOILERS.values()))
                frames[at] = surgery.within(corpus.frames["hello"], surgery.FRAME, rng, change)
    return Mutant("talk", "talk", ABOVE, b"", tuple(frames))


def odd_hello(corpus: Corpus, rng: Random) -> Hello:
    """A hello that an honest child would not say."""
    hello = decode(corpus.frames["hello"])
    assert isinstance(hello, Hello)
    big = rng.choice([0, 1, 2**31, 2**62, 2**63 - 1])
    return rng.choice([
        replace(hello, time_ms=rng.choice([big, -big, -(2**63)])),
        replace(hello, registry_version=(rng.choice([big, 2**64 - 1]), b"")),
        replace(hello, major=2),
        replace(hello, unit=UnitPath("hue.vn")),
        replace(hello, tree_id=b"x"),
        replace(hello, digest=corpus.node(CHILD).context.tree_id, nonce=b"n" * 10_000),
    ])  # fmt: skip


def odd_frame(corpus: Corpus, rng: Random) -> bytes:
    """Well-formed frames that an honest child would not send."""
    heads = decode(corpus.frames["heads"])
    assert isinstance(heads, HeadsFrame)
    moved = [
        replace(head, seq=rng.choice([1, head.seq + 1, 2**62 - 1]), hash=rng.randbytes(32)) for head in heads.heads
    ]
    if rng.random() < 0.4:
        return encode(odd_hello(corpus, rng))
    return encode(rng.choice([HeadsFrame(tuple(moved)), Ack(tuple(moved)), HeadsFrame(()), Ack(())]))


MAKERS = {"talk": conversation, "talk again": conversation}

"""The exchange without answers: what goes into a bundle, and what the frames of one mean."""

from __future__ import annotations

from typing import Any

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from sync_engine.carried import CarriedExchange
from sync_engine.errors import LimitExceeded, Malformed, OutOfScope, WrongTree
from sync_engine.exchange import Finish, PeerHeard, PeerRefused, Send, Ship, Store
from sync_engine.frames import Ack, BatchFrame, Credit, Done, HeadsFrame, Hello, Receipt, Refusal
from sync_engine.telling import KeepReceipt, SignReceipt

D, P = UnitPath("phu-vang.hue.vn"), UnitPath("hue.vn")
TREE = bytes(32)
OWN = StreamId(D, Epoch("a" * 16), Scope(D))
HEADS = [Head(OWN, seq, bytes([seq]) * 32) for seq in range(1, 4)]


def hello(unit: UnitPath, **changes: Any) -> Hello:
    given = {"unit": unit, "epoch": Epoch("a" * 16), "tree_id": TREE, "certificate_sha256": b"", "software": ""}
    return Hello(**{**given, "registry_version": (1, b""), "time_ms": 0, "nonce": b"", "digest": b"", **changes})


def side(held: int = 3) -> CarriedExchange:
    return CarriedExchange(hello(D), {OWN: HEADS[held - 1]}, child=D, peer=P)


def test_without_a_word_of_the_peer_all_that_its_receipt_lacks_is_shipped_and_signed_for() -> None:
    exchange = side()
    assert [type(each.frame) for each in exchange.start() if isinstance(each, Send)] == [Hello, HeadsFrame]
    effects = exchange.on_frame(HeadsFrame((HEADS[0],)))
    [ship] = [each for each in effects if isinstance(each, Ship)]
    assert [(span.after, span.upto) for scope in ship.scopes for span in scope] == [(HEADS[0], HEADS[2])]
    assert exchange.may_send(2**40)
    exchange.on_sent(HEADS[1], 10)
    assert exchange.on_frame(Done()) == []
    assert exchange.on_shipped() == [SignReceipt(frozenset({OWN.scope}))]
    assert exchange.on_receipt_sent() == [Send(Done()), Finish()]


def test_what_is_stored_is_answered_by_the_receipt_alone() -> None:
    exchange = side()
    exchange.start()
    assert exchange.on_frame(hello(P)) == [PeerHeard(hello(P))]
    exchange.on_frame(HeadsFrame((HEADS[2],)))
    exchange.on_shipped()
    assert exchange.on_frame(BatchFrame(b"batch")) == [Store(b"batch")]
    assert exchange.on_frame(Done()) == []  # nothing is signed for before it is stored
    assert exchange.on_stored(HEADS[2], 5) == [SignReceipt(frozenset({OWN.scope}))]
    assert exchange.on_frame(Receipt(b"", b"")) == [KeepReceipt(Receipt(b"", b""))]


def test_what_only_a_line_needs_means_nothing() -> None:
    exchange = side()
    exchange.start()
    assert [exchange.on_frame(each) for each in (Ack((HEADS[0],)), Credit(1))] == [[], []]


def test_a_refusal_of_something_that_was_sent_weeks_ago_is_told() -> None:
    exchange = side()
    exchange.start()
    exchange.on_frame(hello(P))
    assert exchange.on_frame(Refusal(HEADS[1], "breaks a rule")) == [PeerRefused(HEADS[1], "breaks a rule")]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ([hello(D)], OutOfScope),
        ([hello(P, tree_id=b"x" * 32)], WrongTree),
        ([hello(P), hello(P)], Malformed),
        ([hello(P), BatchFrame(b"")], LimitExceeded),
    ],
    ids=["another sender", "another tree", "introduced twice", "batches before heads"],
)
def test_a_bundle_that_breaks_the_protocol_is_refused(said: list[Any], fault: type[Exception]) -> None:
    exchange = side()
    exchange.start()
    *before, last = said
    for frame in before:
        exchange.on_frame(frame)
    with pytest.raises(fault):
        exchange.on_frame(last)

"""One session as a state machine: who says what, when it ends, and what it never does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from sync_engine.branches import LostHistory, MayHaveLostHistory, PeerRestored, TellChain
from sync_engine.errors import IncompatibleVersion, LimitExceeded, Malformed, OutOfScope, WrongTree
from sync_engine.exchange import (
    CREDIT_BYTES,
    Effect,
    Exchange,
    Finish,
    PeerForked,
    PeerHolds,
    PeerMet,
    Send,
    Ship,
    Span,
    Store,
    StoreCertificates,
    digest_of,
    sending_order,
)
from sync_engine.frames import Ack, BatchFrame, Certificates, Credit, Done, Frame, HeadsFrame, Hello, Receipt, Refusal
from sync_engine.names import is_shared
from sync_engine.telling import KeepReceipt, SignReceipt

RECEIPT = Receipt(b"body", b"signature")
CHILD, PARENT = UnitPath("phu-vang.hue.vn"), UnitPath("hue.vn")


def stream(origin: str, scope: str = CHILD, epoch: str = "0a") -> StreamId:
    return StreamId(UnitPath(origin), Epoch(epoch), Scope(scope))


def head(origin: str, seq: int, scope: str = CHILD, branch: str = "") -> Head:
    return Head(stream(origin, scope), seq, sha256(f"{origin} {scope} {seq} {branch}".encode()).digest())


def hello(unit: UnitPath, held: Iterable[Head] = ()) -> Hello:
    return Hello(unit, Epoch("0a"), b"tree", b"certificate", (1, b"r"), 0, b"nonce", digest_of(held), "dongbo")


def side(unit: UnitPath, *held: Head) -> Exchange:
    return Exchange(
        hello(unit, held), {each.stream: each for each in held}, child=CHILD, peer=PARENT if unit == CHILD else CHILD
    )


def met(unit: UnitPath, *held: Head, theirs: Iterable[Head] = ()) -> Exchange:
    """A side that has greeted a peer with other heads and compared."""
    one = side(unit, *held)
    other = hello(PARENT if unit == CHILD else CHILD)
    one.on_frame(replace(other, digest=b"other"))
    one.on_frame(HeadsFrame(tuple(theirs)))
    return one


def sent(effects: Iterable[Effect]) -> list[Frame]:
    return [effect.frame for effect in effects if isinstance(effect, Send)]


def test_the_child_speaks_first() -> None:
    assert side(PARENT).start() == []
    assert sent(side(CHILD).start()) == [hello(CHILD)]


def test_equal_digests_end_it_in_one_round_trip() -> None:
    mine = head(CHILD, 3)
    child, parent = side(CHILD, mine), side(PARENT, mine)
    (greeting,) = sent(child.start())
    answers = sent(parent.on_frame(greeting))
    assert answers == [hello(PARENT, [mine]), Done()]
    effects = child.on_frame(answers[0])
    assert (PeerHolds((mine,)) in effects, Finish() in effects, sent(effects)) == (True, True, [])


REFUSED = {
    "another major version": (replace(hello(PARENT), major=2), IncompatibleVersion, "2.0.*1.0"),
    "another tree": (replace(hello(PARENT), tree_id=b"another"), WrongTree, "another tree"),
    "another name than its certificate's": (replace(hello(PARENT), unit=UnitPath("vn")), OutOfScope, "calls itself"),
}


@pytest.mark.parametrize(("greeting", "fault", "words"), REFUSED.values(), ids=REFUSED)
def test_a_peer_that_cannot_be_worked_with_is_refused(greeting: Hello, fault: type[Exception], words: str) -> None:
    with pytest.raises(fault, match=words):
        side(CHILD).on_frame(greeting)


def test_a_newer_minor_version_is_worked_with() -> None:
    effects = side(CHILD).on_frame(replace(hello(PARENT), minor=7))
    assert isinstance(effects[0], PeerMet)


def test_whoever_breaks_the_order_is_cut_off() -> None:
    for frame in (HeadsFrame(()), BatchFrame(b"x"), Done(), Ack(()), Credit(1), Certificates(())):
        with pytest.raises(Malformed):
            side(CHILD).on_frame(frame)
    with pytest.raises(Malformed, match="twice"):
        met(CHILD).on_frame(hello(PARENT))
    with pytest.raises(Malformed, match="twice"):
        met(CHILD).on_frame(HeadsFrame(()))


def test_heads_are_named_and_credit_is_granted_at_once() -> None:
    mine = head(CHILD, 3)
    effects = side(CHILD, mine).on_frame(replace(hello(PARENT), digest=b"other"))
    assert sent(effects) == [HeadsFrame((mine,)), Credit(CREDIT_BYTES)]


def test_each_side_ships_what_the_other_lacks() -> None:
    mine, theirs = head(CHILD, 5), head(PARENT, 2)
    one = side(CHILD, mine, theirs)
    one.on_frame(replace(hello(PARENT), digest=b"other"))
    effects = one.on_frame(HeadsFrame((head(CHILD, 3), theirs)))
    assert effects == [
        PeerHolds((head(CHILD, 3), theirs)),
        MayHaveLostHistory((head(CHILD, 3),)),
        Ship(((Span(stream(CHILD), head(CHILD, 3), mine),),)),
    ]


def test_nothing_is_assumed_of_the_peer_but_what_it_says_now() -> None:
    one = met(CHILD, head(CHILD, 5), theirs=())
    assert one.more(one.held) == ((Span(stream(CHILD), None, head(CHILD, 5)),),)


def test_a_fork_stops_that_stream_and_no_other() -> None:
    mine, other = head(PARENT, 4, branch="mine"), head(CHILD, 2)
    one = side(CHILD, mine, other)
    one.on_frame(replace(hello(PARENT), digest=b"other"))
    effects = one.on_frame(HeadsFrame((head(PARENT, 4, branch="theirs"),)))
    assert PeerForked(head(PARENT, 4, branch="theirs")) in effects
    assert effects[-1] == Ship(((Span(other.stream, None, other),),))


def test_a_parent_does_not_stop_because_a_child_says_so() -> None:
    """The child would have to show the batch: its word alone could stop its parent."""
    unknown = head(PARENT, 3)
    effects = met(PARENT, head(PARENT, 2), theirs=[unknown]).on_frame(Done())
    assert effects == []


def test_a_parent_that_was_restored_is_shown_its_own_batches() -> None:
    one = side(CHILD, head(PARENT, 3))
    one.on_frame(replace(hello(PARENT), digest=b"other"))
    effects = one.on_frame(HeadsFrame((head(PARENT, 2),)))
    assert PeerRestored(stream(PARENT)) in effects
    assert effects[-1] == Ship(((Span(stream(PARENT), head(PARENT, 2), head(PARENT, 3)),),))


@pytest.mark.parametrize("mine", [(), (head(CHILD, 2),)], ids=["nothing left", "an older image"])
def test_a_child_that_is_behind_on_its_own_stream_begins_a_new_life_first(
    mine: tuple[Head, ...],
) -> None:
    one = side(CHILD, *mine)
    one.on_frame(replace(hello(PARENT), digest=b"other"))
    effects = one.on_frame(HeadsFrame((head(CHILD, 3),)))
    assert [type(each) for each in effects] == [PeerHolds, LostHistory, TellChain, Ship]


def test_a_child_that_is_ahead_on_its_own_stream_looks_whether_it_is_the_same_stream() -> None:
    one = side(CHILD, head(CHILD, 3))
    one.on_frame(replace(hello(PARENT), digest=b"other"))
    effects = one.on_frame(HeadsFrame((head(CHILD, 2),)))
    assert [type(each) for each in effects] == [PeerHolds, MayHaveLostHistory, Ship]
    assert effects[1] == MayHaveLostHistory((head(CHILD, 2),))


def test_a_scope_that_does_not_travel_here_ends_the_session() -> None:
    with pytest.raises(OutOfScope):
        met(PARENT, theirs=[head("da-nang.vn", 1, "da-nang.vn")])


def test_the_registry_goes_first_then_catalogues_then_small_scopes() -> None:
    spans = [
        Span(stream(CHILD, scope), None, head(CHILD, seq, scope))
        for scope, seq in [("hue.vn", 9), (CHILD, 2), ("hue.vn/catalog", 50), ("vn/registry", 99)]
    ]
    assert [group[0].stream.scope for group in sending_order(spans)] == [
        "vn/registry", "hue.vn/catalog", CHILD, "hue.vn",
    ]  # fmt: skip


def test_an_ack_follows_the_store_and_never_the_arrival() -> None:
    one = met(PARENT)
    assert one.on_frame(BatchFrame(b"bytes")) == [Store(b"bytes")]
    mine = head(CHILD, 1)
    assert sent(one.on_stored(mine, 5)) == [Ack((mine,)), Credit(CREDIT_BYTES + 5)]


def test_what_was_dropped_is_not_acknowledged_and_its_credit_comes_back() -> None:
    one = met(PARENT)
    one.on_frame(BatchFrame(b"bytes"))
    assert sent(one.on_stored(None, 5)) == [Credit(CREDIT_BYTES + 5)]


def test_a_refused_batch_is_named_and_its_stream_left_for_the_session() -> None:
    receiver, sender = met(PARENT), met(CHILD, head(CHILD, 9))
    receiver.on_frame(BatchFrame(b"bytes"))
    refusal, _credit = sent(receiver.on_refused(head(CHILD, 1), "a rule", 5))
    assert isinstance(refusal, Refusal)
    sender.on_sent(head(CHILD, 1), 5)
    sender.on_frame(refusal)
    assert sender.is_refused(stream(CHILD))
    assert not sender.is_refused(stream(PARENT))
    assert sender.more(sender.held) == ()


def test_a_sender_waits_for_credit_and_credit_never_shrinks() -> None:
    one = met(CHILD)
    assert not one.may_send(1)
    one.on_frame(Credit(100))
    one.on_frame(Credit(50))
    one.on_sent(head(CHILD, 1), 60)
    assert (one.may_send(40), one.may_send(41)) == (True, False)


def test_a_peer_that_sends_beyond_its_credit_is_cut_off() -> None:
    one = met(PARENT)
    half = bytes(CREDIT_BYTES // 2)
    one.on_frame(BatchFrame(half))
    one.on_frame(BatchFrame(half))
    with pytest.raises(LimitExceeded):
        one.on_frame(BatchFrame(b"x"))


def test_a_batch_before_the_heads_is_not_taken() -> None:
    one = side(PARENT)
    one.on_frame(replace(hello(CHILD), digest=b"other"))
    with pytest.raises(LimitExceeded):
        one.on_frame(BatchFrame(b"x"))


def test_the_child_ends_it_when_all_is_acknowledged_and_stored() -> None:
    one = met(CHILD, head(CHILD, 1), theirs=())
    one.on_sent(head(CHILD, 1), 5)
    one.on_frame(BatchFrame(b"theirs"))
    assert Finish() not in one.on_shipped()
    assert Finish() not in one.on_frame(Done())
    assert Finish() not in one.on_frame(Ack((head(CHILD, 1),)))
    assert one.on_stored(head(PARENT, 1), 6)[-1] == SignReceipt(frozenset({CHILD}))
    assert Finish() not in one.on_receipt_sent()
    assert one.on_frame(RECEIPT) == [KeepReceipt(RECEIPT)]
    assert one.on_receipt_kept() == [Finish()]
    assert Finish() not in one.on_frame(Done()), "once"


def test_an_acknowledgement_of_less_is_not_one_of_all() -> None:
    one = met(CHILD, head(CHILD, 2), theirs=())
    one.on_sent(head(CHILD, 2), 5)
    one.on_shipped()
    one.on_frame(Done())
    assert one.on_frame(Ack((head(CHILD, 1),)))[1:] == []
    assert one.on_frame(Ack((head(CHILD, 2),)))[1:] == [SignReceipt(frozenset({CHILD}))]


def test_the_parent_never_ends_it() -> None:
    one = met(PARENT)
    assert Finish() not in [*one.on_shipped(), *one.on_frame(Done()), *one.on_receipt_sent(), *one.on_receipt_kept()]


def test_a_side_signs_once_all_is_stored_for_what_moved_and_for_what_the_peer_lacks() -> None:
    elsewhere, above = head(PARENT, 1, scope="hue.vn/catalog"), head(PARENT, 1, scope="hue.vn")
    one = side(CHILD, elsewhere)
    one.on_frame(replace(hello(PARENT), digest=b"other"))
    lacking = frozenset({Scope("hue.vn/catalog"), above.stream.scope})  # the last does not travel here
    one.on_frame(HeadsFrame((elsewhere,), unconfirmed=lacking))
    one.on_frame(BatchFrame(b"theirs"))
    assert not any(isinstance(each, SignReceipt) for each in [*one.on_shipped(), *one.on_frame(Done())])
    assert SignReceipt(frozenset({CHILD, Scope("hue.vn/catalog")})) in one.on_stored(head(PARENT, 1), 6)


def test_nobody_signs_twice() -> None:
    one = met(CHILD)
    one.on_frame(RECEIPT)
    with pytest.raises(Malformed):
        one.on_frame(RECEIPT)


def test_who_lacks_a_receipt_is_never_in_step() -> None:
    digests = {digest_of([], unconfirmed=each) for each in ("", CHILD, PARENT)}
    assert len(digests) == 3


def test_certificates_are_passed_on_and_unknown_frames_passed_over() -> None:
    assert met(CHILD).on_frame(Certificates(((b"leaf",),))) == [StoreCertificates(((b"leaf",),))]


SCOPES = {
    "its rows": (CHILD, True),
    "rows below it": (f"vinh-an.{CHILD}", True),
    "its parent's rows": ("hue.vn", False),
    "its neighbour's rows": ("huong-tra.hue.vn", False),
    "a name that only ends alike": (f"x-{CHILD}", False),
    "the catalogue above": ("hue.vn/catalog", True),
    "the catalogue below": (f"vinh-an.{CHILD}/catalog", True),
    "the neighbour's catalogue": ("huong-tra.hue.vn/catalog", False),
    "the registry": ("vn/registry", True),
    "another tree's registry": ("la/registry", False),
}


@pytest.mark.parametrize(("scope", "travels"), SCOPES.values(), ids=SCOPES)
def test_what_travels_between_a_child_and_its_parent(scope: str, travels: bool) -> None:
    assert is_shared(scope, CHILD) is travels


def test_a_digest_of_heads_is_of_every_part_and_of_no_order() -> None:
    heads = [head(CHILD, 1), head(PARENT, 2)]
    assert digest_of(heads) == digest_of(reversed(heads))
    others = [head(CHILD, 2), head(CHILD, 1, branch="x"), head(CHILD, 1, "hue.vn"), head(PARENT, 1)]
    others.append(Head(stream(CHILD, epoch="0b"), 1, heads[0].hash))
    assert len({digest_of([each]) for each in [heads[0], *others]}) == 6

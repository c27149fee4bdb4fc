"""What a revoked key has signed: what counts, what waits, and that all nodes come to the same, whatever comes first."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.storage.inbox import Taken
from node.storage.revocations import check_not_revoked, is_out, quarantined
from node.storage.statements import keep
from sync_engine.batch import SealedBatch
from sync_engine.errors import OutOfScope, Revoked
from sync_engine.frames import Statement
from sync_engine.registry import parse_registry
from sync_engine.revocation import Naming, reach
from sync_engine.statements import REVOCATION, Revocation, body_of
from tests.forging import PERSON, Stream, rows
from tests.pki import EPOCH, Node
from tests.world import SHIPPED, World, WorldNode

VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
MEMBER = parse_registry(SHIPPED).tables["member"]


def stream(unit: str, scope: str = VANG) -> StreamId:
    return StreamId(UnitPath(unit), Epoch(EPOCH), Scope(scope))


DISTRICT, PROVINCE, CENTRE = stream(VANG), stream(HUE), stream(ROOT)


def naming(by: StreamId, by_seq: int, of: StreamId, seq: int) -> Naming:
    return Naming(by, by_seq, Head(of, seq, b"h" * 32))


CASES: dict[str, tuple[dict[StreamId, int], list[Naming], dict[StreamId, int]]] = {
    "nobody names anything": ({DISTRICT: 3}, [], {DISTRICT: 3}),
    "a good key names what lies beyond": ({DISTRICT: 3}, [naming(PROVINCE, 1, DISTRICT, 5)], {DISTRICT: 5}),
    "a good key names what lies before": ({DISTRICT: 3}, [naming(PROVINCE, 1, DISTRICT, 2)], {DISTRICT: 3}),
    "a revoked key vouches before its own end": (
        {DISTRICT: 3, PROVINCE: 4},
        [naming(PROVINCE, 4, DISTRICT, 5)],
        {DISTRICT: 5, PROVINCE: 4},
    ),
    "a revoked key vouches for nothing after its end": (
        {DISTRICT: 3, PROVINCE: 4},
        [naming(PROVINCE, 5, DISTRICT, 5)],
        {DISTRICT: 3, PROVINCE: 4},
    ),
    "one that was vouched for vouches in turn": (
        {DISTRICT: 3, PROVINCE: 4},
        [naming(PROVINCE, 5, DISTRICT, 6), naming(CENTRE, 9, PROVINCE, 5)],
        {DISTRICT: 6, PROVINCE: 5},
    ),
    "two revoked keys cannot lift each other": (
        {DISTRICT: 3, PROVINCE: 4},
        [naming(PROVINCE, 5, DISTRICT, 6), naming(DISTRICT, 6, PROVINCE, 5)],
        {DISTRICT: 3, PROVINCE: 4},
    ),
}


@pytest.mark.parametrize(("cuts", "namings", "last"), CASES.values(), ids=CASES)
def test_how_far_a_revoked_key_counts(
    cuts: dict[StreamId, int], namings: list[Naming], last: dict[StreamId, int]
) -> None:
    revoked = frozenset((each.origin, each.epoch) for each in cuts)
    for order in permutations(namings):
        assert reach(cuts, order, revoked) == last


# --- as it is kept ---------------------------------------------------------------------------------------------------


@pytest.fixture(name="world")
def world_fixture(tmp_path: Path) -> World:
    """Nothing but the centre, which makes itself."""
    return World(tmp_path)


def revocation(world: World, unit: str, signer: Node, *last: Head, reason: str = "stolen") -> Statement:
    body = body_of(
        Revocation(
            tree_id=world.tree.tree_id,
            unit=UnitPath(unit),
            epoch=Epoch(EPOCH),
            reason=reason,
            last=tuple(last),
            signer=signer.unit,
            signer_epoch=signer.epoch,
            time_ms=1,
        )
    )
    return Statement(REVOCATION, body, signer.signer(REVOCATION, body))


class Story:
    """The centre, and what may come to it: three batches of a district whose key ends after the first, and one of the
    province that has seen all three."""

    def __init__(self, world: World) -> None:
        self.centre = world.node(ROOT)
        vang = Stream(world, VANG).certify(self.centre)
        hue = Stream(world, HUE).certify(self.centre)
        self.batches = [vang.batch(rows(MEMBER, (str(at), 10 + at, PERSON), new=True)) for at in (1, 2, 3)]
        self.end = revocation(world, VANG, world.tree.node(HUE), self.batches[0].head)
        self.vouch = hue.batch(rows(MEMBER, ("1", 50, {"note": "gặp"})), seen=[self.batches[2].head])

    def tell(self, what: SealedBatch | Statement) -> Taken | None:
        if isinstance(what, SealedBatch):
            return self.centre.take(what.data)
        with self.centre.write() as connection:
            keep(connection, self.centre.context, what)
        return None


def members(node: WorldNode) -> list[str]:
    node.apply_ready()
    return [key for (key,) in node.sql("SELECT id FROM member ORDER BY id")]


def test_up_to_the_cut_batches_stay_valid_and_beyond_it_they_wait(world: World) -> None:
    story = Story(world)
    story.tell(story.end)
    assert [story.tell(each) for each in story.batches] == [Taken.APPLIED, Taken.WAITING, Taken.WAITING]
    assert members(story.centre) == ["1"]
    with story.centre.read() as connection:
        (held,) = quarantined(connection)
    assert (held["unit"], held["batches"], held["why"]) == (VANG, 2, "revoked")


def test_what_a_good_key_has_seen_counts(world: World) -> None:
    story = Story(world)
    for each in (story.end, *story.batches, story.vouch):
        story.tell(each)
    assert members(story.centre) == ["1", "2", "3"]
    assert story.centre.sql("SELECT note FROM member WHERE id = '1'") == [("gặp",)]


@pytest.mark.parametrize("at", range(5))
def test_whenever_the_revocation_comes_the_end_is_the_same(world: World, at: int) -> None:
    """Who had applied more before it came goes on with that, and its next batch vouches for it to all others."""
    story = Story(world)
    arrived: list[SealedBatch | Statement] = [*story.batches, story.vouch]
    arrived.insert(at, story.end)
    for each in arrived:
        story.tell(each)
    assert members(story.centre) == ["1", "2", "3"]
    with story.centre.read() as connection:
        assert quarantined(connection) == []


def test_only_the_parent_can_revoke(world: World) -> None:
    centre = world.node(ROOT)
    Stream(world, VANG).certify(centre)
    Stream(world, HUE).certify(centre)
    for signer in (world.tree.node(ROOT), world.tree.node(VANG)):
        with centre.write() as connection, pytest.raises(OutOfScope):
            keep(connection, centre.context, revocation(world, VANG, signer))


def test_a_revoked_key_is_told_by_whom_and_why(world: World) -> None:
    story = Story(world)
    story.tell(story.end)
    with story.centre.read() as connection:
        assert is_out(connection, UnitPath(VANG))
        with pytest.raises(Revoked, match=r"hue\.vn has ended this key of phu-vang\.hue\.vn: stolen"):
            check_not_revoked(connection, UnitPath(VANG), Epoch(EPOCH))
        check_not_revoked(connection, UnitPath(HUE), Epoch(EPOCH))


def test_a_cut_at_another_branch_accepts_nothing_of_this_one(world: World) -> None:
    story = Story(world)
    story.tell(story.batches[0])
    other = Head(DISTRICT, 2, b"x" * 32)
    story.tell(story.batches[1])
    story.tell(revocation(world, VANG, world.tree.node(HUE), other))
    assert story.tell(story.batches[2]) is Taken.WAITING

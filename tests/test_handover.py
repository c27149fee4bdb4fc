"""Which epochs of a unit count: rows of what is known, and the answer in every order in which it may have come."""

from __future__ import annotations

from itertools import permutations

import pytest
from sqlalchemy import Connection

from conflict.values import Epoch, UnitPath
from node import authority
from node.renewal import name_known
from node.storage.certificates import accepted_epochs, followers_of, is_accepted, keep_path, unaccepted
from node.storage.inbox import Taken
from node.storage.revocations import key_alarms, quarantined
from node.storage.statements import keep
from sync_engine.errors import BadCertificate
from sync_engine.frames import Statement
from sync_engine.handover import Known, accepted, key_hash
from sync_engine.registry import parse_registry
from sync_engine.statements import HANDOVER, Handover, body_of
from tests.forging import PERSON, Stream, rows
from tests.pki import NOW, Node, Tree
from tests.world import SHIPPED, World

UNIT, PARENT = UnitPath("phu-vang.hue.vn"), UnitPath("hue.vn")
MEMBER = parse_registry(SHIPPED).tables["member"]
A, B, C, X = (Epoch(f"00000000000000{digits}") for digits in ("a1", "b2", "c3", "ee"))
KEYS = {epoch: epoch.encode() * 2 for epoch in (A, B, C, X)}


def follows(before: Epoch, after: Epoch, key: bytes | None = None) -> Handover:
    return Handover(b"", UNIT, after, key or KEYS[after], UNIT, before, 0)


def named(epoch: Epoch) -> Handover:
    return Handover(b"", UNIT, epoch, KEYS[epoch], PARENT, A, 0)


CASES: dict[str, tuple[str, list[Handover], str]] = {
    "the only key known counts": ("a", [], "a"),
    "a key that the first signed for counts": ("ab", [follows(A, B)], "ab"),
    "one after the other": ("abc", [follows(A, B), follows(B, C)], "abc"),
    "the parent names the first": ("ax", [named(A)], "a"),
    "the parent names a recovered one": ("abc", [named(A), named(C), follows(A, B)], "abc"),
    "a key that vouches for the first gains nothing": ("ax", [named(A), follows(X, A)], "a"),
    "a handover to another key under the same epoch is none": ("ab", [named(A), follows(A, B, b"other")], "a"),
    "what an unaccepted key signs for does not count": ("axc", [named(A), follows(X, C)], "a"),
    "keys that vouch for each other": ("abx", [named(A), follows(B, X), follows(X, B)], "a"),
    "an earlier key whose certificate has not come yet leaves the later one alone": ("b", [follows(A, B)], "b"),
}


def letters(epochs: frozenset[Epoch]) -> str:
    return "".join(sorted("x" if each == X else each[-2] for each in epochs))


@pytest.mark.parametrize(("known", "handovers", "counted"), CASES.values(), ids=CASES)
def test_which_keys_count_in_whatever_order_they_came(known: str, handovers: list[Handover], counted: str) -> None:
    epochs = [{"a": A, "b": B, "c": C, "x": X}[each] for each in known]
    for order in permutations([Known(epoch, KEYS[epoch]) for epoch in epochs]):
        for said in permutations(handovers):
            assert letters(accepted(order, said)) == counted


def test_where_nobody_has_named_any_the_first_to_come_counts() -> None:
    a, x = Known(A, KEYS[A]), Known(X, KEYS[X])
    assert letters(accepted([a, x], [])) == "a"
    assert letters(accepted([x, a], [])) == "x"  # unavoidable: nothing tells them apart


# --- as it is kept ---------------------------------------------------------------------------------------------------


def handover(tree: Tree, node: Node, signer: Node, time_ms: int = 1) -> Statement:
    body = body_of(
        Handover(
            tree_id=tree.tree_id,
            unit=node.unit,
            epoch=node.epoch,
            key_sha256=key_hash(node.key.public_key()),
            signer=signer.unit,
            signer_epoch=signer.epoch,
            time_ms=time_ms,
        )
    )
    return Statement(HANDOVER, body, signer.signer(HANDOVER, body))


def test_certificates_and_handovers_end_in_the_same_in_every_order(world: World) -> None:
    centre, tree = world.node("vn"), world.tree
    parent, first, second, third = (
        tree.node(PARENT),
        tree.node("huong-thuy.hue.vn", A),
        tree.node("huong-thuy.hue.vn", B),
        tree.node("huong-thuy.hue.vn", X),
    )
    said = [handover(tree, first, parent), handover(tree, second, first)]

    def do(connection: Connection, what: Node | Statement) -> None:
        if isinstance(what, Node):
            keep_path(connection, what.path, tree.tree_id)
        else:
            keep(connection, centre.context, what)

    for order in permutations([first, second, third]):
        for at in range(4):
            steps: list[Node | Statement] = [*order]
            waits = [each for each in said]
            with centre.engine.connect() as connection, connection.begin() as all_of_it:
                for index, step in enumerate(steps):
                    if index == at:
                        waits = tell(connection, do, waits)
                    do(connection, step)
                waits = tell(connection, do, waits)
                assert not waits
                assert set(accepted_epochs(connection, first.unit)) == {A, B}
                assert unaccepted(connection) == [(first.unit, X)]
                all_of_it.rollback()


def tell(connection: Connection, do: object, statements: list[Statement]) -> list[Statement]:
    """Offer statements as a session does: one whose signer's certificate is not here comes again later."""
    left = []
    for each in statements:
        try:
            do(connection, each)  # type: ignore[operator]
        except BadCertificate:
            left.append(each)
    return left


def test_a_second_key_is_an_alarm_at_the_unit_itself(world: World) -> None:
    node = world.node(UNIT)
    with node.write() as connection:
        keep_path(connection, world.tree.node(UNIT, X).path, world.tree.tree_id)
        assert not is_accepted(connection, UNIT, X)
        (alarm,) = key_alarms(connection, node.context)
    assert (alarm["what"], alarm["epoch"], alarm["mine"]) == ("second key", X, True)


def test_one_key_is_one_units(world: World) -> None:
    """A CA that certifies one key for two units, by mistake or not."""
    centre, tree = world.node("vn"), world.tree
    Stream(world, UNIT).certify(centre)
    key = tree.node(UNIT).key.public_key()
    leaf = authority.issue_node(*tree.ca(PARENT), "huong-thuy.hue.vn", B, key, NOW)
    path = (authority.der_of(leaf), *tree.ca_path(PARENT))
    with centre.write() as connection, pytest.raises(BadCertificate, match=r"a key of phu-vang\.hue\.vn is offered"):
        keep_path(connection, path, tree.tree_id)


def test_batches_of_a_second_key_wait_until_it_is_signed_for(world: World) -> None:
    parent, tree = world.node(PARENT), world.tree
    Stream(world, UNIT).certify(parent)
    stream = Stream(world, UNIT, epoch=B).certify(parent, signed=False)
    batch = stream.batch(rows(MEMBER, ("1", 10, PERSON), new=True))
    taken = parent.take(batch.data)
    assert taken is Taken.WAITING
    with parent.write() as connection:
        assert [each["why"] for each in quarantined(connection)] == ["second key"]
        keep(connection, parent.context, handover(tree, tree.node(UNIT, B), tree.node(UNIT)))
        assert quarantined(connection) == []
    parent.apply_ready()
    assert parent.sql("SELECT id FROM member") == [("1",)]


def test_a_parent_signs_for_the_first_keys_it_finds(world: World) -> None:
    """Those that an older version has certified."""
    parent = world.node(PARENT)
    Stream(world, UNIT).certify(parent)
    with parent.write() as connection:
        keys = StandIn(world.tree.node(PARENT), world.tree.tree_id)
        name_known(connection, parent.context, keys, UNIT)  # type: ignore[arg-type]
        keep_path(connection, world.tree.node(UNIT, X).path, world.tree.tree_id)
        name_known(connection, parent.context, keys, UNIT)  # type: ignore[arg-type]
        assert unaccepted(connection) == [(UNIT, X)]


FOLLOWERS: dict[str, tuple[list[tuple[Epoch | None, Epoch, int]], Epoch, set[Epoch]]] = {
    "nothing has followed the first": ([(None, A, 10)], A, set()),
    "its key handed over": ([(None, A, 10), (A, B, 20)], A, {B}),
    "the parent signed for another machine later": ([(None, A, 10), (None, X, 20)], A, {X}),
    "the parent signed for another machine before": ([(None, X, 5), (None, A, 10)], A, set()),
    "another machine took the place of its line": ([(None, A, 10), (A, B, 15), (None, X, 20)], B, {X}),
    "the child's clock is behind": ([(None, A, 10), (A, B, 5), (B, C, 6)], C, set()),
    "a clock that is behind hides no other machine": ([(None, A, 10), (A, B, 5), (None, X, 20)], B, {X}),
    "a restored parent has signed again": ([(None, A, 10), (None, A, 20)], A, set()),
    "a restored parent has signed again for what led to it": ([(None, A, 10), (A, B, 15), (None, A, 20)], B, set()),
    "before the parent's word has come": ([(None, X, 20)], A, set()),
}


@pytest.mark.parametrize(("said", "present", "followers"), FOLLOWERS.values(), ids=FOLLOWERS)
def test_what_has_followed_a_key(
    world: World, said: list[tuple[Epoch | None, Epoch, int]], present: Epoch, followers: set[Epoch]
) -> None:
    """Rows of (key that handed over, or None: the parent; key it signed for; when by its clock)."""
    tree, sister = world.tree, UnitPath("huong-thuy.hue.vn")
    node = world.node(PARENT)
    for order in permutations(said):
        with node.engine.connect() as connection, connection.begin() as all_of_it:
            for epoch in (A, B, C, X):
                keep_path(connection, tree.node(sister, epoch).path, tree.tree_id)
            for by, epoch, time_ms in order:
                signer = tree.node(PARENT) if by is None else tree.node(sister, by)
                keep(connection, node.context, handover(tree, tree.node(sister, epoch), signer, time_ms))
            assert followers_of(connection, sister, present) == followers
            all_of_it.rollback()


class StandIn:
    """What signing needs of a KeyStore."""

    def __init__(self, node: Node, tree_id: bytes) -> None:
        self.unit, self.epoch, self.tree_id = node.unit, node.epoch, tree_id
        self._node = node

    def signer(self) -> object:
        return self._node.signer

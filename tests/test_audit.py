"""The audit chain: what is recorded of whom, what never is, and that no change of it goes unnoticed."""

from __future__ import annotations

import csv
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conflict.values import Scope
from node import auditing, enrolment, keys, setup
from node import invitation as invitations
from node.commands import commands
from node.config import Schedule
from node.local import Node
from node.restoring import RESTORED
from node.storage.anchors import others_anchors, own_anchors
from node.storage.audit import CONFIG_HASH, acting, audit_head, note, noted, proven, recorded
from node.storage.certificates import keep_path
from node.storage.engine import execute
from node.storage.meta import set_meta
from node.storage.statements import keep, said, say
from sync_engine.audit import (
    NOTHING_BEFORE,
    Act,
    Anchor,
    Link,
    Record,
    Walk,
    head_from_wire,
    head_to_wire,
    link,
)
from sync_engine.errors import BadInput, ReplicationError
from sync_engine.statements import Heartbeat
from tests.conftest import DISTRICT
from tests.pki import EPOCH
from tests.world import World, WorldNode

# --- the chain alone -------------------------------------------------------------------------------------------------


def chain(*acts: str) -> list[Link]:
    made, before = [], NOTHING_BEFORE
    for no, act in enumerate(acts, 1):
        record = Record(no, 1_000 * no, act, "{}", "service", "done")
        before = link(before, record)
        made.append(Link(record, before))
    return made


def walked(links: list[Link], *anchors: Anchor) -> Walk:
    walk = Walk(anchors)
    for each in links:
        walk.add(each)
    return walk


def signed(each: Link, at: int = 9_000) -> Anchor:
    return Anchor("hue.vn", "", each.record.no, each.hash, at)


LINKS = chain("init", "invite", "dump", "start", "stop")

CHANGES: dict[str, Callable[[Record], Record]] = {
    "its number": lambda r: Record(r.no + 7, r.time_ms, r.act, r.subject, r.by, r.outcome),
    "its time": lambda r: Record(r.no, r.time_ms + 1, r.act, r.subject, r.by, r.outcome),
    "its act": lambda r: Record(r.no, r.time_ms, "revoke", r.subject, r.by, r.outcome),
    "what it was about": lambda r: Record(r.no, r.time_ms, r.act, '{"unit":"vn"}', r.by, r.outcome),
    "who did it": lambda r: Record(r.no, r.time_ms, r.act, r.subject, "somebody", r.outcome),
    "its outcome": lambda r: Record(r.no, r.time_ms, r.act, r.subject, r.by, "begun"),
}


def test_a_chain_as_it_was_written_is_whole() -> None:
    walk = walked(LINKS, signed(LINKS[-1]), signed(LINKS[1]))
    assert walk.faults == []
    assert (walk.no, walk.hash) == (5, LINKS[-1].hash)
    assert [verdict for _, verdict in walk.judged()] == ["holds", "holds"]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("at", range(5))
def test_any_change_of_any_record_is_found_at_that_record(at: int, change: Callable[[Record], Record]) -> None:
    changed = [*LINKS]
    changed[at] = Link(change(LINKS[at].record), LINKS[at].hash)
    assert walked(changed).faults
    assert walked(changed).faults[0].no == at + 1


@pytest.mark.parametrize("at", range(4))
def test_a_record_that_was_taken_out_is_missed(at: int) -> None:
    assert [(each.no, each.kind) for each in walked(LINKS[:at] + LINKS[at + 1 :]).faults] == [(at + 1, "missing")]


def test_a_tail_that_was_cut_is_missed_where_it_was_signed() -> None:
    walk = walked(LINKS[:3], signed(LINKS[-1]))
    assert walk.faults == []
    assert [verdict for _, verdict in walk.judged()] == ["cut"]


def test_a_chain_that_was_written_anew_is_not_what_was_signed() -> None:
    walk = walked(chain("init", "invite", "start", "start", "stop", "start"), signed(LINKS[-1]))
    assert walk.faults == []
    assert [verdict for _, verdict in walk.judged()] == ["rewritten"]


def test_what_a_restore_on_record_has_taken_is_told_as_that() -> None:
    restored = chain("init", "invite", "start", "start", "stop", "start", "start", "start", "start", "restore")
    assert [verdict for _, verdict in walked(restored, signed(LINKS[-1])).judged()] == ["former"]
    assert [verdict for _, verdict in walked(restored, signed(LINKS[-1], at=10_001)).judged()] == ["rewritten"]


def test_a_head_is_the_same_on_the_wire_and_back() -> None:
    assert head_from_wire(head_to_wire(57, LINKS[0].hash)) == (57, LINKS[0].hash)
    assert head_from_wire(b"") is None
    assert head_from_wire(LINKS[0].hash) is None


def test_the_hash_of_a_record_never_changes() -> None:
    """Chains written today are proven in twenty years."""
    record = Record(1, 1_800_000_000_000, "dump", '{"file":"a.csv","table":"member"}', "Lê (hue)", "done")
    assert link(NOTHING_BEFORE, record).hex() == "7b0a03a4eb3f6708e39cec5bd418dfd0fa0a4b8d568b619c7ff36f9e8884ed3b"


# --- in the database -------------------------------------------------------------------------------------------------


@pytest.fixture
def hue(world: World) -> WorldNode:
    return world.node("hue.vn")


Told = tuple[str, dict[str, Any], str, str]


def told(each: Link) -> Told:
    """(act, subject, by, outcome)."""
    return each.record.act, json.loads(each.record.subject), each.record.by, each.record.outcome


def acts(node: WorldNode) -> list[Told]:
    return [*map(told, node.look(lambda connection, _context: recorded(connection, None, None)))]


def test_records_follow_one_another_and_the_head_is_the_last(hue: WorldNode) -> None:
    with hue.write() as connection:
        assert audit_head(connection) == b""
        note(connection, hue.context, Act.INVITE, {"unit": DISTRICT})
        with acting("Lê Thị Hoa (hue)"):
            note(connection, hue.context, Act.DUMP, {"table": "member", "file": "x.csv"}, outcome="begun")
        walk = proven(connection, ())
        assert walk.faults == []
        assert audit_head(connection) == head_to_wire(2, walk.hash)
    assert acts(hue) == [
        ("invite", {"unit": DISTRICT}, "service", "done"),
        ("dump", {"table": "member", "file": "x.csv"}, "Lê Thị Hoa (hue)", "begun"),
    ]


def test_an_act_that_fails_leaves_no_record_of_having_been_done(hue: WorldNode) -> None:
    def work(connection: Any, _context: Any) -> None:
        execute(connection, "INSERT INTO _meta (key, value) VALUES ('x', 'y')")
        raise BadInput("no")

    with pytest.raises(BadInput):
        hue.rewrite(noted(work, Act.LOAD, {"table": "member"}))
    assert acts(hue) == []


def test_a_change_of_settings_is_noted_at_the_next_start(hue: WorldNode) -> None:
    from node.storage.audit import note_config

    for digest in ("a" * 64, "a" * 64, "b" * 64):
        hue.rewrite(note_config, digest)
    assert acts(hue) == [("config", {"was": "a" * 16, "is": "b" * 16}, "service", "done")]


TAMPERING = {
    "a value": "UPDATE _audit SET who = 'somebody else' WHERE no = 2",
    "a hash": "UPDATE _audit SET hash = zeroblob(32) WHERE no = 2",
    "a record less": "DELETE FROM _audit WHERE no = 2",
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING)
def test_tampering_with_the_table_is_found(hue: WorldNode, statement: str) -> None:
    with hue.write() as connection:
        for _ in range(3):
            note(connection, hue.context, Act.START)
    hue.sql(statement)
    assert hue.look(lambda connection, _context: proven(connection, ())).faults


def test_a_tail_cut_off_in_the_table_is_found_with_what_was_signed(hue: WorldNode) -> None:
    with hue.write() as connection:
        for _ in range(3):
            note(connection, hue.context, Act.START)
        head = head_from_wire(audit_head(connection))
    assert head is not None
    hue.sql("DELETE FROM _audit WHERE no = 3")
    walk = hue.look(lambda connection, _context: proven(connection, [Anchor("hue.vn", "", *head, signed_ms=1)]))
    assert walk.faults == []
    assert [verdict for _, verdict in walk.judged()] == ["cut"]


def beat(node: WorldNode) -> None:
    """What a node signs at least daily, with the head of its chain."""

    def work(connection: Any, context: Any) -> None:
        said = Heartbeat(
            *(context.tree_id, context.unit, context.epoch, Scope(context.unit), (), ()),
            time_ms=context.now_ms(),
            audit_head=audit_head(connection),
        )
        say(connection, context, said)

    node.rewrite(work)


def verdicts(node: WorldNode) -> list[str]:
    def work(connection: Any, context: Any) -> list[str]:
        return [verdict for _, verdict in proven(connection, own_anchors(connection, context)).judged()]

    return list(node.look(work))


def test_what_a_node_signs_anchors_its_chain_and_travels_to_its_parent(world: World) -> None:
    district, province = world.node(DISTRICT), world.node("hue.vn")
    for _ in range(3):
        district.rewrite(note, Act.START)
    beat(district)
    assert verdicts(district) == ["holds"]
    (mine,) = district.look(own_anchors)
    (statement,) = [each.statement for each in district.look(lambda c, _: said(c, "heartbeat", DISTRICT))]
    with province.write() as connection:
        keep_path(connection, world.tree.node(DISTRICT, EPOCH).path, world.tree.tree_id)
        keep(connection, province.context, statement)
    assert province.look(others_anchors) == [mine]
    district.sql("DELETE FROM _audit WHERE no = 3")
    assert verdicts(district) == ["cut"]
    district.rewrite(note, Act.STOP)
    assert verdicts(district) == ["rewritten"]
    world.now += 1000
    district.rewrite(note, Act.NEW_LIFE)
    assert verdicts(district) == ["former"]


def test_an_anchor_that_was_made_to_fit_is_none(world: World) -> None:
    district = world.node(DISTRICT)
    district.rewrite(note, Act.START)
    beat(district)
    district.sql("UPDATE _statement SET signature = zeroblob(70) WHERE tag = 'heartbeat' AND unit = ?", DISTRICT)
    assert verdicts(district) == []


# --- every act, by the commands that people give ---------------------------------------------------------------------

NAME, NUMBER, WORD = "Nguyễn Thị Bí Mật", "048200000017", "Đã từ trần năm ngoái"
"""What stands in the records of members, and must stand in none of ours."""

CLERK = {"by": "Trần Văn Thư", "who": "vanthu"}
BY = "Trần Văn Thư (vanthu)"


@dataclass
class Office:
    """A root that was set up as people do it, with a district below it whose home is not run."""

    folder: Path
    node: Node

    async def do(self, command: str, /, **arguments: Any) -> Any:
        return await commands()[command](self.node, {**CLERK, **arguments}, lambda _progress: None)

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        def work(connection: Any) -> list[tuple[Any, ...]]:
            result = execute(connection, statement, values)
            return [tuple(row) for row in result] if result.returns_rows else []

        return await self.node.database.write(work)

    async def acts(self) -> list[Told]:
        links = await self.node.database.read(recorded, None, None)
        return [
            (each.record.act, json.loads(each.record.subject), each.record.by, each.record.outcome) for each in links
        ]

    async def table(self) -> bytes:
        """All that the audit table holds, as bytes."""
        rows = await self.sql("SELECT * FROM _audit")
        return b"\n".join(each if isinstance(each, bytes) else str(each).encode() for row in rows for each in row)


@pytest.fixture
async def office(tmp_path: Path) -> Any:
    home = tmp_path / "vn"
    with acting("vanthu"):
        setup.init(
            home,
            "vn",
            "Trung ương",
            setup.read_registry(None),
            listen="127.0.0.1:1",
            address="127.0.0.1:1",
            schedule=Schedule(every_s=0),
        )
    made = Office(tmp_path, await Node.open(home))
    try:
        yield made
    finally:
        await made.node.close()


async def loads(office: Office) -> tuple[str, dict[str, Any]]:
    path = office.folder / "danh-sach.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["unit", "id", "full_name", "birth_date", "sex", "status", "citizen_id", "note"])
        out.writerow(["vn", "17", NAME, "1990-01-02", "nữ", "official", NUMBER, WORD])
    done = await office.do("load", table="member", file=str(path))
    assert done["inserted"] == 1, done
    return "load", {"table": "member", "file": "danh-sach.csv", "inserted": 1, "updated": 0}


async def dumps(office: Office) -> tuple[str, dict[str, Any]]:
    await loads(office)
    await office.do("dump", table="member", file=str(office.folder / "ra.csv"))
    assert ("dump", {"table": "member", "file": "ra.csv"}, BY, "begun") in await office.acts()
    return "dump", {"table": "member", "file": "ra.csv", "rows": 1}


async def invites(office: Office) -> tuple[str, dict[str, Any]]:
    await office.do("invite", label="hue", name="Thành phố Huế", ttl_hours=1)
    return "invite", {"unit": "hue.vn"}


async def enrols(office: Office) -> tuple[str, dict[str, Any]]:
    made = await office.do("invite", label="hue", name="Thành phố Huế", ttl_hours=1)
    invitation = invitations.decode(made["token"])
    (office.folder / "hue").mkdir()
    pending = keys.request(office.folder / "hue", invitation.unit, with_ca=True)
    from dongbo.v1 import sync_pb2

    from sync_engine.certificates import verify_enrolment_path

    caller = verify_enrolment_path((*invitation.path,), office.node.keys.tree_id, datetime.now(UTC))
    request = sync_pb2.EnrolRequest(
        node_request=pending.node_request, ca_request=pending.ca_request, epoch=int(pending.epoch, 16)
    )
    await enrolment.answer(office.node, caller, request.SerializeToString())
    return "enrol", {"unit": "hue.vn", "epoch": pending.epoch}


NEXT_REGISTRY = setup.SHIPPED_REGISTRY.read_text(encoding="utf-8").replace("version = 1", "version = 2", 1)


async def applies(office: Office) -> tuple[str, dict[str, Any]]:
    await office.do("registry_apply", toml=NEXT_REGISTRY, **{"from": 1, "to": 2})
    return "registry-publish", {"version": 2}


async def accidents(office: Office) -> int:
    """Delete most of a table; the brake's number."""
    office.node.context.brake = type(office.node.context.brake)(share=0.05, rows_min=1)
    await loads(office)
    await office.node.seal()
    await office.sql("DELETE FROM member")
    await office.node.seal()
    (brake,) = (await office.do("status", brief=True))["brakes"]
    return int(brake["number"])


async def releases(office: Office) -> tuple[str, dict[str, Any]]:
    number = await accidents(office)
    await office.do("release", number=number)
    return "release", {"number": number}


async def undoes(office: Office) -> tuple[str, dict[str, Any]]:
    number = await accidents(office)
    await office.do("undo", number=number)
    return "undo", {"number": number, "rows": 1}


async def starts(office: Office) -> tuple[str, dict[str, Any]]:
    await auditing.started(office.node)
    return "start", {}


async def stops(office: Office) -> tuple[str, dict[str, Any]]:
    await auditing.stopped(office.node)
    return "stop", {}


async def reconfigures(office: Office) -> tuple[str, dict[str, Any]]:
    await office.node.database.write(set_meta, CONFIG_HASH, "0" * 64)
    await auditing.started(office.node)
    found = [subject for act, subject, _, _ in await office.acts() if act == "config"]
    return "config", {"was": "0" * 16, "is": found[0]["is"]}


async def refuses_a_peer(office: Office) -> tuple[str, dict[str, Any]]:
    await auditing.refused(office.node, "hue.vn", Act.CALL_REFUSED, {}, "BadCertificate")
    return "call-refused", {"peer": "hue.vn"}


async def revokes(office: Office) -> tuple[str, dict[str, Any]]:
    await enrols(office)
    await office.do("revoke", unit="hue.vn", reason=f"máy của {NAME} bị mất")
    return "revoke", {"unit": "hue.vn"}


async def rotates(office: Office) -> tuple[str, dict[str, Any]]:
    epoch = (await office.do("rotate"))["epoch"]
    return "rotate", {"epoch": epoch}


async def recovers(office: Office) -> tuple[str, dict[str, Any]]:
    epoch = (await office.do("recover"))["epoch"]
    return "new-life", {"epoch": epoch}


async def backs_up(office: Office) -> tuple[str, dict[str, Any]]:
    await office.do("backup", file=str(office.folder / "sao-luu.dongbo"), salt="00" * 16, key="11" * 32)
    return "backup", {"file": "sao-luu.dongbo"}


async def wakes_restored(office: Office) -> tuple[str, dict[str, Any]]:
    await office.node.database.write(set_meta, RESTORED, "17")
    await office.node.close()
    office.node = await Node.open(office.node.home)
    return "restore", {"made_at_ms": "17"}


BY_PEOPLE = [loads, dumps, invites, enrols, applies, releases, undoes, revokes, rotates, recovers, backs_up]
BY_THE_SERVICE = [starts, stops, reconfigures, refuses_a_peer, wakes_restored]
Deed = Callable[[Office], Awaitable[tuple[str, dict[str, Any]]]]


@pytest.mark.parametrize("deed", [*BY_PEOPLE, *BY_THE_SERVICE], ids=lambda deed: deed.__name__)
async def test_every_act_is_on_record_with_who_did_it(office: Office, deed: Deed) -> None:
    act, subject = await deed(office)
    found = [each for each in await office.acts() if each[:2] == (act, subject)][-1]
    assert found[2] == (BY if deed in BY_PEOPLE and deed is not enrols else "service")
    assert found[3] == ("BadCertificate" if deed is refuses_a_peer else "done")
    walk = await office.node.database.read(proven, ())
    assert walk.faults == []
    assert (await office.acts())[0] == ("init", {"unit": "vn"}, "vanthu", "done")


async def test_no_value_of_a_members_record_is_in_the_audit_table(office: Office) -> None:
    for deed in (dumps, revokes, applies):
        await deed(office)
    await office.sql("UPDATE member SET full_name = ? WHERE id = '17'", NAME + " đổi")
    with pytest.raises(ReplicationError):
        await office.do("resolve", number=4711, value=WORD, why=f"vì {NAME}")
    with pytest.raises(ReplicationError):
        await office.do("dump", table=NAME, file=str(office.folder / "khong.csv"))
    held = await office.table()
    assert b"dump" in held
    assert b"ra.csv" in held
    for value in (NAME, NUMBER, WORD, "Bí Mật"):
        assert value.encode() not in held
        assert json.dumps(value).strip('"').encode() not in held


async def test_a_refused_command_is_on_record_with_the_reason(office: Office) -> None:
    with pytest.raises(ReplicationError):
        await office.do("resolve", number=4711, keep=1)
    with pytest.raises(ReplicationError):
        await office.do("load", table="member", file=str(office.folder / "not-there.csv"))
    assert (await office.acts())[-2:] == [
        ("resolve", {"number": 4711}, BY, "NotDecided"),
        ("load", {"table": "member", "file": "not-there.csv"}, BY, "BadInput"),
    ]


async def test_nothing_is_exported_that_could_not_be_recorded(office: Office) -> None:
    await office.sql("DROP TABLE _audit")
    with pytest.raises(ReplicationError):
        await office.do("dump", table="member", file=str(office.folder / "ra.csv"))
    assert not (office.folder / "ra.csv").exists()


async def test_a_peer_that_is_refused_without_end_does_not_fill_the_record(office: Office) -> None:
    for _ in range(200):
        await auditing.refused(office.node, "hue.vn", Act.BATCH_REFUSED, {"seq": 1}, "RuleBroken")
    await auditing.refused(office.node, "da-nang.vn", Act.BATCH_REFUSED, {"seq": 1}, "RuleBroken")
    peers = [subject["peer"] for act, subject, _, _ in await office.acts() if act == "batch-refused"]
    assert 10 < peers.count("hue.vn") < 40
    assert peers.count("da-nang.vn") == 1

"""What docs/security.md says is stopped, where no other test proves it."""

from __future__ import annotations

import ast
import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import click
import pytest
from sqlalchemy.exc import DBAPIError

from conflict.values import Scope, StreamId
from node.cli import views
from node.cli.main import main
from node.messages import say
from node.restoring import RESTORED
from node.storage import report, revocations
from node.storage.engine import execute, open_async_engine, open_engine
from node.storage.inbox import Taken
from sync_engine.batch import BatchHeader, encode_batch, encode_header, parse_batch
from sync_engine.entries import encode_section
from sync_engine.errors import BadInput
from sync_engine.registry import BUILTIN, parse_registry
from tests import lives, pki
from tests.forging import PERSON, Stream, rows
from tests.lives import Family
from tests.test_registry_change import NEXT, version
from tests.world import SHIPPED, World

ROOT = Path(__file__).parent.parent
CENTRE, PROVINCE, DISTRICT = "vn", "hue.vn", "phu-vang.hue.vn"
MEMBER, REGISTRY = parse_registry(SHIPPED).tables["member"], BUILTIN["_registry"]
NAME = "Nguyễn Thị Bí Mật"


# --- logs, errors, command lines -------------------------------------------------------------------------------------

LOGGED = {
    "unit", "peer", "scope", "stream", "seq", "epoch", "table", "tables", "rows", "tag", "listen", "version", "sqlite",
    "database", "failures", "refused", "retry_s", "received", "sent", "seconds", "waited", "reason", "hint",
}  # fmt: skip
COUNTED = {"found.kinds", "{key: summary[key] for key in ('sent_batches', 'received_batches', 'seconds')}"}
"""Given to a log as a mapping of names and figures."""


def log_calls() -> list[tuple[str, ast.Call]]:
    found = []
    for path in (ROOT / "node").rglob("*.py"):
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(each, ast.Call)
                and isinstance(each.func, ast.Attribute)
                and isinstance(each.func.value, ast.Name)
                and each.func.value.id == "log"
            ):
                found.append((f"{path.relative_to(ROOT)}:{each.lineno}", each))
    return found


def test_a_log_event_has_names_and_figures_and_no_place_for_a_value() -> None:
    calls = log_calls()
    assert len(calls) > 30
    for where, call in calls:
        for each in call.keywords:
            assert each.arg in LOGGED if each.arg else ast.unparse(each.value) in COUNTED, where
        assert all(isinstance(each, ast.Constant | ast.Name) for each in call.args), where


async def test_what_a_database_refuses_is_told_without_its_values(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "x.db")
    with engine.connect() as connection, pytest.raises(DBAPIError) as refused:
        execute(connection, "INSERT INTO nowhere VALUES (?)", (NAME,))
    assert NAME not in str(refused.value)
    engine.dispose()
    service = open_async_engine(tmp_path / "x.db")
    async with service.connect() as opened:
        with pytest.raises(DBAPIError) as refused:
            await opened.run_sync(execute, "INSERT INTO nowhere VALUES (?)", (NAME,))
    assert NAME not in str(refused.value)
    await service.dispose()


def test_no_option_takes_a_secret_itself() -> None:
    """Everybody on a machine may read its processes' command lines. An invitation may be given as a file."""
    taken = []
    commands = [*main.commands.values()]
    commands += [each for group in commands if isinstance(group, click.Group) for each in group.commands.values()]
    for command in commands:
        for each in command.params:
            if re.search("secret|pass|_key$|token", str(each.name)):
                is_named = isinstance(each.type, click.Path) or str(each.name).endswith("_env")
                taken += [] if is_named or getattr(each, "is_flag", False) else [f"{command.name} {each.name}"]
    assert taken == []


def test_what_others_say_of_themselves_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A unit gives itself a name, a peer its reasons; an operator reads both in ``units``, ``status`` and errors."""
    steers = "\x1b[2J\x1b]0;x\x07[red]Huyện[/red]\r"
    unit = {"unit": DISTRICT, "name": steers, "level": "district", "has_node": True}
    views.show_units([{**unit, "revoked": False, "invited_until_ms": None}])
    child = {"state": "failing", "last_seen_at": None, "behind_batches": 0, "last_error": steers}
    child["by_hand"] = {"lives_by_stick": False}
    views.show(views.console(), views._children([{**unit, **child}]))
    said = (
        capsys.readouterr().out
        + say("error", message=BadInput(steers))
        + say("look.left", **dict.fromkeys(("stream", "unit", "state", "reason"), steers))
    )
    assert said.count("[red]Huyện[/red]") > 3
    assert not {"\x1b", "\r", "\x07"} & set(said)


# --- keys in wrong hands ---------------------------------------------------------------------------------------------


async def test_a_unit_that_a_thief_of_the_ca_key_made_up_is_in_the_list(family: Family, tmp_path: Path) -> None:
    hue = family.nodes[PROVINCE]
    made_up = pki.join(hue.keys, tmp_path / "thief", "bia.hue.vn")
    await hue.database.write(lives._meet, hue, made_up.node_path)
    await family.rounds(2)
    for name in (PROVINCE, CENTRE):
        node = family.nodes[name]
        assert "bia.hue.vn" in [each["unit"] for each in await node.database.read(report.units, node.context)]
    ((told,),) = family.sql(PROVINCE, "SELECT subject FROM _audit WHERE act = 'enrol' AND subject LIKE '%bia.hue.vn%'")
    assert json.loads(told)["invited"] is False


async def test_the_root_ends_its_own_former_key(family: Family) -> None:
    """The root's node key was stolen: it rotates, and cuts what went before; the thief signs on with the old one."""
    root = family.nodes[CENTRE]
    stolen, sign = root.keys.epoch, root.keys.signer()
    await root.begin_life(stolen, again=False)
    await family.rounds(1)
    assert root.keys.epoch != stolen
    ended = await root.database.write(
        revocations.revoke, root.context, root.keys, root.context.unit, "stolen", keep_present=True
    )
    assert ended == [stolen]
    await family.rounds(4)
    for node in family.nodes.values():
        assert await node.database.read(revocations.reason_of, root.context.unit, stolen) == "stolen"
    (held,) = family.sql(
        PROVINCE, "SELECT held_seq, held_hash FROM _stream WHERE scope = 'vn/registry' AND epoch = ?", stolen
    )
    digest, toml = sha256(b"").digest(), rows(REGISTRY, ("2", 10, {"toml": NEXT}), new=True)
    section, chunks = encode_section(toml, lambda: bytes(16))
    stream = StreamId(root.context.unit, stolen, Scope("vn/registry"))
    header = encode_header(
        BatchHeader(root.keys.tree_id, stream, held[0] + 1, held[1], (), (0, digest), False, (section,))
    )
    forged = encode_batch(header, sign("batch", header), (chunks,))
    hue = family.nodes[PROVINCE]
    assert (await hue.take(await hue.verify(forged))).taken is Taken.WAITING
    assert family.sql(PROVINCE, "SELECT id FROM _registry") == [("1",)]


async def test_of_a_backup_that_is_restored_twice_the_parent_certifies_one(family: Family) -> None:
    family.enter(DISTRICT, DISTRICT, "1", NAME)
    await family.rounds(2)
    await family.image(DISTRICT, "image")
    family.sql("image", "INSERT INTO _meta (key, value) VALUES (?, '17')", RESTORED)
    shutil.copytree(family.home("image"), family.home("second"))
    await family.restore(DISTRICT, "image")
    await family.open("second")
    assert len({family.nodes[each].context.epoch for each in (DISTRICT, "second")}) == 2
    for at, name in enumerate((DISTRICT, "second"), 2):
        family.enter(name, DISTRICT, str(at), f"{NAME} {at}")
    await family.rounds(3)
    assert set(family.refused) == {"second"}
    assert family.frozen() == []
    assert family.sql(CENTRE, "SELECT id FROM member ORDER BY id") == [("1",), ("2",)]
    assert ("3",) in family.sql("second", "SELECT id FROM member")


def test_two_registry_versions_of_one_number_stop_at_the_first_and_are_kept_as_proof(tmp_path: Path) -> None:
    """The root's node key signs one version for some and another for others."""
    world = World(tmp_path)
    hue = world.node(PROVINCE)
    world.sync(PROVINCE)
    root = Stream(world, CENTRE, f"{CENTRE}/registry").certify(hue)
    ((stored,),) = hue.sql("SELECT data FROM _batch JOIN _stream ON _stream.no = stream WHERE scope = 'vn/registry'")
    root.last = parse_batch(stored)
    other = NEXT.replace("Bí danh", "Biệt hiệu")
    one, two = (
        root.batch(
            rows(REGISTRY, ("2", 10, {"toml": toml}), new=True), keep=False, registry_version=(0, sha256(b"").digest())
        )
        for toml in (NEXT, other)
    )
    assert [hue.take(each.data) for each in (one, two)] == [Taken.APPLIED, Taken.FORKED]
    assert version(hue) == 2
    assert hue.sql("SELECT toml FROM _registry WHERE id = '2'") == [(NEXT,)]
    assert hue.sql("SELECT first_header, second_header FROM _fork") == [(one.header_bytes, two.header_bytes)]
    vang = Stream(world, DISTRICT, registry=parse_registry(other)).certify(hue)
    assert hue.take(vang.batch(rows(MEMBER, ("1", 10, PERSON), new=True)).data) is Taken.WAITING
    vang = Stream(world, CENTRE, DISTRICT, registry=parse_registry(NEXT)).certify(hue)
    assert hue.take(vang.batch(rows(MEMBER, ("1", 10, PERSON), new=True)).data) is Taken.APPLIED

"""An invitation is good for one unit's node, once, until it expires; anything else changes nothing anywhere."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from node import keys
from node.invitation import decode
from node.parent_link import enrol
from tests.e2e.conftest import DISTRICT, PROVINCE
from tests.e2e.processes import Answer, Cluster, Home, dongbo, until


def rows_of(home: Home) -> str:
    """A fingerprint of everything that a node's database holds, but for the record of what was refused."""
    digest = sha256()
    with closing(sqlite3.connect(f"file:{home.database}?mode=ro", uri=True, timeout=10)) as connection:
        for line in connection.iterdump():
            if line.startswith('INSERT INTO "_audit"'):
                continue  # that something was refused is on record
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a home at rest, and its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".db-shm", ".db-wal")
    }


@pytest.fixture(scope="module")
def parent(template: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A province alone, its service running."""
    with template.copy(tmp_path_factory.mktemp("inviting"), PROVINCE) as made:
        made.start(PROVINCE)
        yield made[PROVINCE]


@pytest.fixture(scope="module", autouse=True)
def misled(parent: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Answer]]:
    """A join with a foreign tree's invitation, under way beside the other tests: only silence refuses it."""
    with Cluster(tmp_path_factory.mktemp("foreign")) as foreign, ThreadPoolExecutor() as beside:
        centre = foreign.root("vn", "Nước khác")
        centre.configure(address=f'"127.0.0.1:{parent.port}"')
        token = centre.json("invite", "hue", "--name", "Huế")["token"]
        yield beside.submit(join, foreign.folder / "new", token)
        assert is_no_node(foreign.folder / "new")


def invited(parent: Home, label: str, *more: str) -> str:
    return str(parent.json("invite", label, "--name", "Huyện Mới", *more)["token"])


def join(home: Path, token: str) -> Answer:
    return dongbo("join", token, "--home", str(home))


def assert_refused(answer: Answer, *words: str) -> None:
    assert (answer.code, answer.out) == (1, "")
    assert all(word in answer.complaint for word in words), answer.err


def is_no_node(home: Path) -> bool:
    """Keys may wait there for a better invitation; there is no node and no database."""
    return not (home / "node.toml").exists() and not (home / "dongbo.db").exists()


def test_an_expired_invitation_joins_nobody_and_says_when_it_ended(parent: Home, tmp_path: Path) -> None:
    token = invited(parent, "het-han", "--ttl", "0.0002")
    until("the invitation has expired", lambda: decode(token).is_expired(datetime.now(UTC)))
    before = rows_of(parent)
    assert_refused(join(tmp_path / "new", token), "expired", decode(token).expires.astimezone().strftime("%d/%m/%Y"))
    assert is_no_node(tmp_path / "new")
    assert rows_of(parent) == before


def test_a_used_invitation_joins_no_second_machine(parent: Home, tmp_path: Path) -> None:
    token = invited(parent, "hai-lan")
    assert join(tmp_path / "first", token).code == 0
    before, first = rows_of(parent), files_of(tmp_path / "first")
    assert_refused(join(tmp_path / "second", token), "this invitation has been used")
    assert is_no_node(tmp_path / "second")
    assert (rows_of(parent), files_of(tmp_path / "first")) == (before, first)


def test_of_two_invitations_of_a_unit_the_newer_one_is_good(parent: Home, tmp_path: Path) -> None:
    first, second = invited(parent, "mot-nut"), invited(parent, "mot-nut")
    before = rows_of(parent)
    refused = join(tmp_path / "first", first)
    assert_refused(refused, "this invitation is void: a newer one of mot-nut.hue.vn was made")
    assert "ask the parent unit for a new invitation" in refused.err
    assert is_no_node(tmp_path / "first")
    assert rows_of(parent) == before
    assert join(tmp_path / "second", second).code == 0
    before = rows_of(parent)
    assert_refused(parent.dongbo("invite", "mot-nut", "--name", "Lại", code=1), "mot-nut.hue.vn has a node already")
    assert rows_of(parent) == before


def test_a_home_that_has_a_node_is_left_as_it_is(parent: Home, template: Cluster) -> None:
    token, taken = invited(parent, "cho-khac"), template[DISTRICT].path
    before, files = rows_of(parent), files_of(taken)
    assert_refused(join(taken, token), "holds a node already")
    assert_refused(dongbo("init", "--unit", "vn", "--name", "Khác", "--home", str(taken)), "holds a node already")
    assert (rows_of(parent), files_of(taken)) == (before, files)


@pytest.fixture(scope="module")
def token(parent: Home) -> str:
    return invited(parent, "chua-vao")


def swapped(token: str, at: int) -> str:
    """The first two neighbours from there on that differ change places."""
    while token[at] == token[at + 1]:
        at += 1
    return token[:at] + token[at + 1] + token[at] + token[at + 2 :]


DAMAGED = {
    "cut in the middle": (lambda token: token[: len(token) // 2], "cut short"),
    "with two letters swapped": (lambda token: swapped(token, 400), "checksum"),
    "of a newer program": (lambda token: token.replace("-1:", "-2:"), "newer program"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_invitation_is_recognised_before_anyone_is_called(token: str, tmp_path: Path, name: str) -> None:
    damage, word = DAMAGED[name]
    assert_refused(join(tmp_path / "new", damage(token)), "invitation", word)
    assert not (tmp_path / "new").exists()


def test_neither_a_token_nor_a_file_that_is_there(tmp_path: Path) -> None:
    assert_refused(join(tmp_path / "new", str(tmp_path / "missing.txt")), "missing.txt")
    (tmp_path / "other.txt").write_text("không phải giấy mời")
    assert_refused(join(tmp_path / "new", str(tmp_path / "other.txt")), "starts with dongbo-invitation-1:")
    assert not (tmp_path / "new").exists()


UNFIT = {
    "a name that is no label": (("Phú Vang",), "short name"),
    "another province's district": (("hai-chau.da-nang.vn",), "hai-chau.da-nang.vn"),
    "the word kept for enrolment": (("enrol",), "enrol"),
    "no time at all": (("a-luoi", "--ttl", "0"), "hours"),
    "a time that is no number": (("a-luoi", "--ttl", "nan"), "hours"),
    "a time without end": (("a-luoi", "--ttl", "1e300"), "hours"),
    "a name of nothing": (("a-luoi", "--name", ""), "name"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_invitation_that_cannot_be_is_not_made(parent: Home, name: str) -> None:
    (label, *more), word = UNFIT[name]
    before = rows_of(parent)
    assert_refused(parent.dongbo("invite", label, "--name", "Huyện", *more, code=1), word)
    assert rows_of(parent) == before


def test_a_file_that_is_there_is_not_written_over(parent: Home, tmp_path: Path) -> None:
    before = rows_of(parent)
    (tmp_path / "moi.txt").write_text("của ai đó")
    refused = parent.dongbo("invite", "ghi-de", "--name", "Ghi Đè", "--out", str(tmp_path / "moi.txt"), code=1)
    assert_refused(refused, "moi.txt is there already")
    assert (tmp_path / "moi.txt").read_text() == "của ai đó"
    assert rows_of(parent) == before


def test_a_full_path_names_the_same_child_as_its_label(parent: Home) -> None:
    assert parent.json("invite", "nam-dong.hue.vn", "--name", "Nam Đông")["unit"] == "nam-dong.hue.vn"


def test_a_parent_that_says_nowhere_where_it_is_cannot_invite(template: Cluster, tmp_path: Path) -> None:
    with template.copy(tmp_path, DISTRICT) as made:
        before = rows_of(made[DISTRICT])
        assert_refused(made[DISTRICT].dongbo("invite", "vinh-an", "--name", "Vinh An", code=1), "where its children")
        assert rows_of(made[DISTRICT]) == before


async def test_a_join_whose_answer_was_lost_is_run_again_with_the_same_invitation(parent: Home, tmp_path: Path) -> None:
    token, home = invited(parent, "lai-lan-nua"), tmp_path / "new"
    home.mkdir()
    lost = await enrol(decode(token), keys.request(home, "lai-lan-nua.hue.vn", with_ca=True))
    assert is_no_node(home)
    answer = await asyncio.to_thread(join, home, token)
    assert answer.code == 0, answer.err
    assert keys.KeyStore.load(home).node_path == tuple(lost.node_path)


def test_a_token_of_another_tree_at_this_address_joins_nobody(parent: Home, misled: Future[Answer]) -> None:
    """Another centre's invitation leads here: who answers is not who it should be."""
    assert_refused(misled.result(), f"127.0.0.1:{parent.port}", "certificates do not fit")

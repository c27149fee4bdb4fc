"""What a thief finds on the disk: nothing, where a home is encrypted, whatever happened while it was turned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node import at_rest, secret
from node import config as configs
from node.config import AtRest, Ca
from node.keys import KeyFault, KeyStore
from node.local import Node
from node.secret import BadSecret, NoSecret
from node.storage import rest
from node.storage.engine import connect
from node.storage.rest import InUse
from sync_engine.errors import DiskFull, LocalFault
from tests.resting import (
    MARK,
    MEMBERS,
    encrypted,
    exposed,
    killed_at,
    make_home,
    members_of,
    opened,
    readable,
    secret_file,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stretching is dear by design; what is tested here does not depend on how dear."""
    monkeypatch.setattr(secret, "SCRYPT_LOG_N", 4)
    forget()
    yield
    forget()


def forget() -> None:
    """What a process that ends forgets."""
    secret._opened.clear()
    secret._expected.clear()


def take_away(key: Path) -> None:
    key.unlink()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return secret_file(tmp_path)


# --- the secret ------------------------------------------------------------------------------------------------------


def in_the_home(home: Path, key: Path) -> AtRest:
    home.mkdir()
    return encrypted(key.rename(home / "key"))


def through_a_link(home: Path, key: Path) -> AtRest:
    home.mkdir()
    key.rename(home / "hidden")
    key.symlink_to(home / "hidden")
    return encrypted(key)


def changed(change: Callable[[Path], object]) -> Callable[[Path, Path], AtRest]:
    def source(_home: Path, key: Path) -> AtRest:
        change(key)
        return encrypted(key)

    return source


REFUSED: dict[str, tuple[type[LocalFault], str, Callable[[Path, Path], AtRest]]] = {
    "a key disk that is not there": (NoSecret, "insert the key disk", changed(lambda key: key.unlink())),
    "a variable that is not set": (NoSecret, "DONGBO_NOT_SET", lambda *_: AtRest("encrypted", "", "DONGBO_NOT_SET")),
    "no place at all": (NoSecret, "nothing says where", lambda *_: AtRest("encrypted")),
    "two places": (BadSecret, "two places", lambda _, key: AtRest("encrypted", str(key), "ALSO")),
    "in the home": (BadSecret, "must not be in the home", in_the_home),
    "in the home, by another name": (BadSecret, "must not be in the home", through_a_link),
    "readable by all": (BadSecret, "read by others", changed(lambda key: key.chmod(0o604))),
    "a folder": (BadSecret, "is not a file", changed(lambda key: (key.unlink(), key.mkdir()))),
    "too short": (BadSecret, "bytes", changed(lambda key: key.write_text("11 letters.\n"))),
    "too long": (BadSecret, "bytes", changed(lambda key: key.write_bytes(b"x" * 5000))),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "words", "source"), REFUSED.values(), ids=REFUSED)
def test_a_secret_that_is_no_secret_is_refused_before_anything_is_made(
    tmp_path: Path, key: Path, kind: type[LocalFault], words: str, source: Callable[[Path, Path], AtRest]
) -> None:
    home = tmp_path / "home"
    wish = source(home, key)
    with pytest.raises(kind, match=words) as caught:
        make_home(home, wish)
    assert caught.value.hint
    assert "a secret for tests" not in f"{caught.value!r} {caught.value} {caught.value.hint}"
    assert not (home / "keys").exists()


def test_what_is_made_of_a_secret_is_of_no_use_for_anything_else(tmp_path: Path, key: Path) -> None:
    vaults = [secret.vault(make_home(tmp_path / name, encrypted(key))) for name in ("one", "two")]
    made = {value for vault in vaults for value in (vault.database_key, vault.key_password)}
    assert len(made) == 4
    assert not any(value.hex() in repr(vaults) for value in made if value)


def test_the_group_of_the_superuser_may_read_a_secret_and_no_other(tmp_path: Path, key: Path) -> None:
    """A service manager hands a credential over to a user that way."""
    status = list(os.stat_result(key.stat()))
    status[0], status[5] = 0o100440, 0
    assert not secret._others_may_read(os.stat_result(status))
    status[5] = 1000
    assert secret._others_may_read(os.stat_result(status))


# --- a home that lies encrypted --------------------------------------------------------------------------------------


async def test_nothing_can_be_read_in_a_home_that_is_encrypted_from_the_start(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home", encrypted(key))
    node = await Node.open(home)
    await node.seal()
    assert readable(home) == []
    assert exposed(home) == []
    assert members_of(home) == MEMBERS
    await node.close()
    assert readable(home) == []


async def test_a_plain_home_is_found_readable_or_the_other_tests_prove_nothing(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    await (await Node.open(home)).close()
    assert readable(home) == ["dongbo.db", "keys/ca.key", "keys/node.key"]
    assert exposed(home) == []


async def test_a_key_disk_may_be_taken_away_while_the_node_runs(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home", encrypted(key))
    node = await Node.open(home)
    take_away(key)
    await node.seal()
    KeyStore.load(home)
    await node.close()
    forget()
    with pytest.raises(NoSecret, match="insert the key disk"):
        await Node.open(home)


async def test_another_secret_opens_nothing_and_the_words_say_so(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home", encrypted(key))
    forget()
    secret_file(tmp_path, "quite another secret")
    with pytest.raises(BadSecret, match="this is not the secret of this node"):
        await Node.open(home)
    (home / "at-rest").unlink()
    with pytest.raises(NoSecret, match="at-rest is not there"):  # drawn anew it would never open the database
        await Node.open(home)


async def test_a_database_from_elsewhere_is_told_as_such(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home", encrypted(key))
    other = make_home(tmp_path / "other", encrypted(key))
    (other / "dongbo.db").replace(home / "dongbo.db")
    with pytest.raises(LocalFault, match=r"encrypted with another secret|file is damaged"):
        await Node.open(home)


# --- turning ---------------------------------------------------------------------------------------------------------


async def test_a_home_is_turned_and_turned_back_with_all_that_it_holds(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home")
    await (await Node.open(home)).close()
    before = content(home)
    at_rest.turn(home, encrypted(key))
    assert readable(home) == exposed(home) == []
    assert content(home) == before
    await (await Node.open(home)).close()
    forget()
    at_rest.turn(home, AtRest())
    assert content(home) == before
    assert configs.load(home).at_rest == AtRest()
    take_away(key)
    await (await Node.open(home)).close()
    assert not (home / "at-rest").exists()


def content(home: Path) -> list[tuple[str, Any]]:
    """Every definition and every row."""
    with opened(home) as connection:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
        tables = [name for kind, name, _sql in schema if kind == "table"]
        return [
            ("schema", schema),
            *((name, connection.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables),
        ]


async def test_a_wish_written_by_hand_into_the_settings_is_followed_by_the_next_start(
    tmp_path: Path, key: Path
) -> None:
    home = make_home(tmp_path / "home")
    configs.save(home, replace(configs.load(home), at_rest=encrypted(key)))
    await (await Node.open(home)).close()
    assert readable(home) == []
    assert members_of(home) == MEMBERS


def test_another_place_of_the_same_secret_may_be_named_and_no_other_secret(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home", encrypted(key))
    moved = secret_file(tmp_path, name="moved")
    at_rest.turn(home, encrypted(moved))
    assert configs.load(home).at_rest == encrypted(moved)
    with pytest.raises(BadSecret, match="this is not the secret of this node"):
        at_rest.turn(home, encrypted(secret_file(tmp_path, "quite another secret", "other")))
    assert configs.load(home).at_rest == encrypted(moved)


def test_a_database_that_another_program_has_open_is_not_turned(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home")
    with opened(home) as foreign:
        foreign.execute("PRAGMA journal_mode = WAL")
        foreign.execute("SELECT count(*) FROM member").fetchone()
        with pytest.raises(InUse, match="another program has the database open"):
            at_rest.turn(home, encrypted(key))
        foreign.execute("DELETE FROM member WHERE id = 'M00000'")
    at_rest.settle(home)
    assert readable(home) == []
    assert members_of(home) == MEMBERS - 1


def test_a_disk_without_room_for_both_forms_is_told_before_anything_changes(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path / "home")
    monkeypatch.setattr(rest.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(DiskFull, match="MB too little free space"):
        at_rest.turn(home, encrypted(key))
    assert configs.load(home).at_rest == AtRest()


def test_what_had_been_plain_is_written_over_before_its_name_goes(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home")
    writer = connect(home / "dongbo.db", None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE member SET home_town = full_name")
    left = tmp_path / "left"
    shutil.copytree(home, left)  # as a process leaves it that is killed: with its log
    writer.close()
    files = [path.open("rb") for path in (left / "dongbo.db", left / "dongbo.db-wal", left / "keys" / "node.key")]
    assert all(MARK.encode() in file.read() for file in files[:2])
    at_rest.turn(left, encrypted(key))
    for file in files:
        file.seek(0)
        assert not file.read().strip(b"\0")
        file.close()


@pytest.mark.parametrize("back", [False, True], ids=["encrypting", "decrypting"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_turning_that_is_killed_anywhere_is_finished_by_the_next_start(tmp_path: Path, key: Path, back: bool) -> None:
    steps, made = 0, make_home(tmp_path / "made", encrypted(key) if back else None)
    while True:
        home = tmp_path / f"home{steps}"
        shutil.copytree(made, home)
        forget()
        wish = AtRest() if back else encrypted(key)
        if not killed_at(steps, lambda home=home, wish=wish: at_rest.turn(home, wish)):
            break
        at_rest.settle(home)
        wanted = configs.load(home).at_rest.database
        assert members_of(home) == MEMBERS, steps
        KeyStore.load(home)
        assert exposed(home) == []
        if wanted == "encrypted":
            assert readable(home) == [], steps
        else:
            assert not (home / "at-rest").exists()
        assert not [path.name for path in home.rglob("*") if ".old" in path.name or ".turned" in path.name]
        steps += 1
    print(f"\nkilled at {steps} places")
    assert steps > 20


# --- a passphrase of the CA's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lies_encrypted", [False, True], ids=["plain home", "encrypted home"])
async def test_a_ca_key_with_a_passphrase_of_its_own_is_opened_for_each_signing_alone(
    tmp_path: Path, key: Path, lies_encrypted: bool
) -> None:
    home = make_home(tmp_path / "home", encrypted(key) if lies_encrypted else None)
    stick = secret_file(tmp_path, "the passphrase of the CA", "stick")
    before = KeyStore.load(home).require_ca()[0].private_numbers()
    configs.save(home, replace(configs.load(home), ca=Ca(passphrase_file=str(stick))))
    await (await Node.open(home)).close()
    assert "keys/ca.key" not in readable(home)
    away = stick.rename(tmp_path / "in a drawer")
    node = await Node.open(home)  # it works without, all day
    assert node.keys.ca_path
    with pytest.raises(NoSecret, match=r"insert the key disk: .*stick, which holds the passphrase of the CA key"):
        node.keys.require_ca()
    away.rename(stick)
    assert node.keys.require_ca()[0].private_numbers() == before  # brought, without a new start
    secret_file(tmp_path, "not the passphrase of the CA", "stick")
    with pytest.raises(BadSecret, match="this is not the passphrase of the CA key"):
        node.keys.require_ca()
    await node.close()


async def test_a_passphrase_of_the_ca_that_is_named_no_more_is_asked_for(tmp_path: Path, key: Path) -> None:
    home = make_home(tmp_path / "home")
    configs.save(home, replace(configs.load(home), ca=Ca(passphrase_file=str(key))))
    await (await Node.open(home)).close()
    configs.save(home, replace(configs.load(home), ca=Ca()))
    with pytest.raises(KeyFault, match=r"ca\.key cannot be used: this key is encrypted"):
        await Node.open(home)


# --- the copy that the driver makes ----------------------------------------------------------------------------------


def test_a_copy_of_a_database_in_use_is_of_one_moment(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with opened(home) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE filler (a TEXT)")
        writer.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)"
            " INSERT INTO filler SELECT printf('%01000d', i) FROM n"
        )
        moved = []

        def tell(done: int, of: int) -> None:
            moved.append((done, of))
            writer.execute("DELETE FROM member WHERE id IN (SELECT id FROM member LIMIT 1)")

        rest.copy_live(home / "dongbo.db", None, tmp_path / "copy", None, tell)
        assert len(moved) > 2, "the copy was made in one go: no edit fell into it"
    rest.prove(tmp_path / "copy", None)
    copy = connect(tmp_path / "copy", None)
    assert copy.execute("SELECT count(*) FROM member").fetchone() == (MEMBERS,)
    copy.close()
    assert members_of(home) == MEMBERS - len(moved)

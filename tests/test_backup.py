"""A backup opens with its passphrase alone and is all of a node or nothing; a restore puts in place what was proven."""

from __future__ import annotations

import asyncio
import io
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node import backup, restoring, secret
from node import config as configs
from node.commands.backup import backup_home
from node.commands.state import status
from node.config import AtRest, Ca
from node.keys import KeyStore
from node.local import Node
from node.restoring import RESTORED
from node.sealed_chunks import CHUNK_BYTES, TAG_BYTES
from node.sealed_file import HEADER_BYTES, FileKey, NotSealed, Reader, Writer, WrongPassphrase
from node.secret import NoSecret
from node.storage import rest
from node.storage.rest import Damaged
from sync_engine.errors import AlreadySetUp, BadInput, DiskFull, ReplicationError
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

PASSPHRASE = b"a passphrase for tests"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(secret, "SCRYPT_LOG_N", 4)
    secret._opened.clear()
    yield
    secret._opened.clear()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain home that nothing changes."""
    return make_home(tmp_path_factory.mktemp("plain") / "home")


@pytest.fixture(scope="module")
def saved(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its backup."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secret, "SCRYPT_LOG_N", 4)
        return save(plain, tmp_path_factory.mktemp("saved") / "backup")


def quiet(_done: int, _of: int) -> None:
    """Nobody looks on."""


def save(home: Path, file: Path, tell: Callable[[int, int], None] = quiet) -> Path:
    backup.make(home, file, FileKey.draw(PASSPHRASE), {"made_at": 1_790_000_000_000, "unit": "vn"}, tell)
    return file


def bring_back(file: Path, home: Path, wish: AtRest | None = None) -> restoring.Restored:
    return restoring.restore(file, home, PASSPHRASE, wish, quiet)


# --- the sealed file -------------------------------------------------------------------------------------------------

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]


def sealed(content: bytes) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, FileKey.draw(PASSPHRASE))
    for at in range(0, len(content), 100_000):
        writer.write(content[at : at + 100_000])
    writer.finish()
    return file.getvalue()


def unsealed(data: bytes, passphrase: bytes = PASSPHRASE) -> bytes:
    reader, found = Reader(io.BytesIO(data), passphrase), b""
    while piece := reader.read(70_000):
        found += piece
    return found


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_is_read_again(size: int) -> None:
    content = random.Random(size).randbytes(size)
    assert unsealed(sealed(content)) == content


@pytest.mark.parametrize("size", SIZES)
def test_no_bit_can_be_changed_and_no_end_be_cut_off_or_added(size: int) -> None:
    data = sealed(random.Random(size).randbytes(size))
    places = {0, 15, 16, 19, HEADER_BYTES - 1, HEADER_BYTES, len(data) - 1, len(data) // 2, HEADER_BYTES + CHUNK_BYTES}
    for at in sorted(place for place in places if place < len(data)):
        with pytest.raises((NotSealed, WrongPassphrase)):
            unsealed(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    ends = {0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + CHUNK_BYTES + TAG_BYTES, len(data) - 1, len(data) - 17}
    for end in sorted(end for end in ends if 0 <= end < len(data)):
        with pytest.raises(NotSealed):
            unsealed(data[:end])
    with pytest.raises(NotSealed):
        unsealed(data + b"\0")


def test_chunks_cannot_be_moved_repeated_or_taken_from_another_file() -> None:
    content = random.Random(1).randbytes(4 * CHUNK_BYTES)
    data, other = sealed(content), sealed(content)
    header, step = data[:HEADER_BYTES], CHUNK_BYTES + TAG_BYTES
    chunks = [data[at : at + step] for at in range(HEADER_BYTES, len(data), step)]
    foreign = other[HEADER_BYTES : HEADER_BYTES + step]
    for order in ([1, 0, 2, 3], [0, 0, 1, 2, 3], [0, 1, 3], [3], [0, 1, 2, 3, 3]):
        with pytest.raises(NotSealed):
            unsealed(header + b"".join(chunks[at] for at in order))
    with pytest.raises(NotSealed):
        unsealed(header + foreign + b"".join(chunks[1:]))


def test_a_file_may_not_choose_how_dear_its_passphrase_is_to_stretch() -> None:
    data = bytearray(sealed(b"content"))
    data[16] = 30  # a gigabyte of memory
    with pytest.raises(NotSealed, match="of another kind or damaged"):
        unsealed(bytes(data))


# --- backup ----------------------------------------------------------------------------------------------------------


def test_nothing_of_a_backup_can_be_read_and_nobody_else_may_try(plain: Path, saved: Path) -> None:
    content = saved.read_bytes()
    assert MARK.encode() not in content
    assert b"PRIVATE KEY" not in content
    assert b"vn" not in content[:HEADER_BYTES]
    assert exposed(saved) == []
    assert [path.name for path in saved.parent.iterdir()] == ["backup"]
    assert not [path.name for path in plain.iterdir() if "backup" in path.name]


def test_the_copy_that_waits_to_be_sealed_tells_nothing_of_an_encrypted_home(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", encrypted(secret_file(tmp_path)))
    met: list[list[str]] = []

    def tell(done: int, of: int) -> None:
        if done > of // 2:
            assert (home / "dongbo.db.backup").exists()
            met.append(readable(home) + exposed(home))

    save(home, tmp_path / "backup", tell)
    assert met
    assert not any(met)


def test_a_backup_is_of_one_moment_while_others_write(tmp_path: Path) -> None:
    """A writer keeps two tables equal in each transaction: a copy of two moments would show them unequal."""
    home = make_home(tmp_path / "home")
    with opened(home) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE left_hand (n INTEGER)")
        connection.execute("CREATE TABLE filler AS SELECT hex(randomblob(900000)) AS a FROM member LIMIT 20")
        connection.execute("CREATE TABLE right_hand (n INTEGER)")
    stop, written = threading.Event(), [0]

    def write() -> None:
        with opened(home) as connection:
            while not stop.is_set():
                connection.execute("BEGIN IMMEDIATE")
                for table in ("left_hand", "right_hand"):
                    connection.execute(f"INSERT INTO {table} VALUES (1)")
                connection.execute("COMMIT")
                written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen: list[int] = []
        save(home, tmp_path / "backup", lambda *_said: seen.append(written[0]))
    finally:
        stop.set()
        writer.join()
    assert seen[-1] > seen[0], "nothing was written meanwhile"
    bring_back(tmp_path / "backup", tmp_path / "again")
    with opened(tmp_path / "again") as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {name}_hand").fetchone()[0] for name in ("left", "right")]
    assert counts[0] == counts[1] <= written[0]
    assert members_of(tmp_path / "again") == MEMBERS


PLACES: dict[str, tuple[str, Callable[[Path, Path], Path]]] = {
    "in the home": ("must not lie in the home", lambda home, _: home / "backup"),
    "in a folder that is not there": ("there is no folder", lambda _, folder: folder / "nowhere" / "backup"),
    "over a folder": ("is not a file", lambda _, folder: folder),
}


@pytest.mark.parametrize(("words", "place"), PLACES.values(), ids=PLACES)
def test_a_place_that_cannot_be_is_refused(
    plain: Path, tmp_path: Path, words: str, place: Callable[[Path, Path], Path]
) -> None:
    with pytest.raises(BadInput, match=words):
        save(plain, place(plain, tmp_path))


def test_too_little_room_is_told_before_a_byte_is_written(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(DiskFull, match="MB too little free space"):
        save(plain, tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_ended_leaves_the_older_one_and_nothing_else(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "backup").write_bytes(b"yesterday's")

    def give_up(done: int, of: int) -> None:
        if done > of * 3 // 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(plain, tmp_path / "backup", give_up)
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]
    assert (tmp_path / "backup").read_bytes() == b"yesterday's"
    assert not (plain / "dongbo.db.backup").exists()


async def test_status_says_when_the_last_backup_was_made_and_giving_one_up_ends_its_thread(tmp_path: Path) -> None:
    node = await Node.open(make_home(tmp_path / "home"))
    assert (await ask(node))["last_backup_at"] is None
    key = FileKey.draw(PASSPHRASE)
    arguments = {"file": str(tmp_path / "backup"), "salt": key.salt.hex(), "key": key.key.hex()}
    work = asyncio.create_task(backup_home(node, arguments, lambda _said: work.cancel()))
    with pytest.raises(asyncio.CancelledError):
        await work
    assert (await ask(node))["last_backup_at"] is None
    done = await backup_home(node, arguments, lambda _said: None)
    assert done["bytes"] == (tmp_path / "backup").stat().st_size
    assert done["holds_ca"]
    assert (await ask(node))["last_backup_at"] == done["at"]
    await node.close()


async def ask(node: Node) -> dict[str, Any]:
    return await status(node, {"brief": True}, lambda _said: None)


# --- restore ---------------------------------------------------------------------------------------------------------


def marked(home: Path) -> list[tuple[str]]:
    with opened(home) as connection:
        found: list[tuple[str]] = connection.execute("SELECT value FROM _meta WHERE key = ?", (RESTORED,)).fetchall()
        return found


@pytest.mark.parametrize("lay", ["plain", "encrypted"])
@pytest.mark.parametrize("shall_lie", ["as before", "plain", "encrypted"])
def test_a_node_is_restored_in_whatever_form_is_wished(tmp_path: Path, lay: str, shall_lie: str) -> None:
    key, other = secret_file(tmp_path), secret_file(tmp_path, "another secret for tests", "other")
    old = make_home(tmp_path / "old", encrypted(key) if lay == "encrypted" else None)
    file = save(old, tmp_path / "backup")
    before = KeyStore.load(old)
    certifies = before.require_ca()[0].private_numbers()
    shutil.rmtree(old)
    wish = {"as before": None, "plain": AtRest(), "encrypted": encrypted(other)}[shall_lie]
    home = tmp_path / "new"
    restored = bring_back(file, home, wish)
    lies = lay if shall_lie == "as before" else shall_lie
    assert restored.config == configs.load(home)
    assert restored.config.at_rest.database == lies
    assert members_of(home) == MEMBERS
    assert exposed(home) == []
    assert (readable(home) == []) == (lies == "encrypted")
    after = KeyStore.load(home)
    assert after.node_path == before.node_path
    assert after.require_ca()[0].private_numbers() == certifies
    assert marked(home) == [("1790000000000",)]
    assert sorted(path.name for path in home.iterdir() if path.name != "at-rest") == [
        "dongbo.db", "keys", "lock", "node.toml",
    ]  # fmt: skip


def test_a_ca_key_under_its_own_passphrase_stays_under_it(tmp_path: Path) -> None:
    stick = secret_file(tmp_path, "the passphrase of the CA")
    old = make_home(tmp_path / "old")
    configs.save(old, replace(configs.load(old), ca=Ca(passphrase_file=str(stick))))
    asyncio.run(reopened(old))
    stick = stick.rename(tmp_path / "drawer")
    bring_back(save(old, tmp_path / "backup"), tmp_path / "new")
    with pytest.raises(NoSecret):
        KeyStore.load(tmp_path / "new").require_ca()
    stick.rename(tmp_path / "key")
    assert KeyStore.load(tmp_path / "new").require_ca()


async def reopened(home: Path) -> None:
    await (await Node.open(home)).close()


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


BAD: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "another file": lambda _: b"%PDF-1.7 something else, and long enough to hold a header of ours, and more than that",
    "a bit flipped in the salt": flipped(30),
    "a bit flipped in the first chunk": flipped(HEADER_BYTES + 50),
    "a bit flipped in the middle": lambda data: flipped(len(data) // 2)(data),
    "a bit flipped in the last byte": lambda data: flipped(len(data) - 1)(data),
    "half of it": lambda data: data[: len(data) // 2],
    "cut between two chunks": lambda data: data[: HEADER_BYTES + CHUNK_BYTES + TAG_BYTES],
    "one byte short": lambda data: data[:-1],
    "one byte long": lambda data: data + b"\0",
    "twice": lambda data: data + data,
}


@pytest.mark.parametrize("harm", BAD.values(), ids=BAD)
def test_a_bad_backup_is_refused_and_leaves_nothing(
    saved: Path, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(harm(saved.read_bytes()))
    with pytest.raises((NotSealed, WrongPassphrase)) as caught:
        bring_back(bad, tmp_path / "home")
    assert caught.value.hint
    assert not (tmp_path / "home").exists()


def test_another_passphrase_is_told_apart_from_damage(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongPassphrase, match="does not open this backup"):
        restoring.restore(saved, tmp_path / "home", b"not the passphrase", None, quiet)
    assert not (tmp_path / "home").exists()


def forged(saved: Path, file: Path, change: Callable[[bytearray], bytes]) -> Path:
    """A backup of somebody who has the passphrase and means ill, or of a node whose disk was rotten."""
    content = change(bytearray(unsealed(saved.read_bytes())))
    file.write_bytes(sealed(bytes(content)))
    return file


def end_of_manifest(content: bytes) -> int:
    return 4 + int.from_bytes(content[:4], "big")


def rotten(content: bytearray) -> bytes:
    """Some pages in the middle of the database are noise."""
    at = end_of_manifest(content) + 20 * 4096
    content[at : at + 60 * 4096] = random.Random(3).randbytes(60 * 4096)
    return bytes(content)


def climbing(content: bytearray) -> bytes:
    manifest = content[4 : end_of_manifest(content)].replace(b'"ca.pem"', b'"../../escaped"')
    return len(manifest).to_bytes(4, "big") + manifest + content[end_of_manifest(content) :]


FORGED: dict[str, tuple[type[ReplicationError], Callable[[bytearray], bytes]]] = {
    "pages that rotted before": (Damaged, rotten),
    "a name that climbs out of the home": (NotSealed, climbing),
    "a manifest without end": (NotSealed, lambda content: b"\xff\xff\xff\xff" + content[4:]),
    "a manifest that is none": (NotSealed, lambda content: b"\0\0\0\2{]" + content),
    "a manifest of a later kind": (NotSealed, lambda content: b'\0\0\0\x0d{"format": 9}' + content),
    "less database than it says": (NotSealed, lambda content: content[:-4096]),
    "more database than it says": (NotSealed, lambda content: content + bytes(4096)),
    "nothing at all": (NotSealed, lambda _: b""),
}


@pytest.mark.parametrize(("kind", "change"), FORGED.values(), ids=FORGED)
def test_a_backup_is_not_believed_because_it_opens(
    saved: Path, tmp_path: Path, kind: type[ReplicationError], change: Callable[[bytearray], bytes]
) -> None:
    with pytest.raises(kind) as caught:
        bring_back(forged(saved, tmp_path / "forged", change), tmp_path / "home")
    assert MARK not in f"{caught.value} {caught.value.hint}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forged"]


def test_a_home_that_holds_a_node_is_never_written_over(plain: Path, saved: Path) -> None:
    before = {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()}
    with pytest.raises(AlreadySetUp, match="holds a node already"):
        bring_back(saved, plain)
    assert {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()} == before


def test_a_secret_that_is_not_at_hand_is_named_and_another_way_offered(tmp_path: Path) -> None:
    key = secret_file(tmp_path)
    file = save(make_home(tmp_path / "old", encrypted(key)), tmp_path / "backup")
    key.unlink()
    with pytest.raises(NoSecret, match="insert the key disk") as caught:
        bring_back(file, tmp_path / "home")
    assert "--plain" in caught.value.hint
    assert not (tmp_path / "home").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_restore_that_is_killed_is_made_again_and_is_no_node_before_its_end(saved: Path, tmp_path: Path) -> None:
    home, steps = tmp_path / "home", 0
    while killed_at(steps, lambda: bring_back(saved, home)):
        if configs.path_of(home).exists():
            assert members_of(home) == MEMBERS
            shutil.rmtree(home)
        steps += 3
    print(f"\nkilled at {steps // 3} places")
    assert steps > 30
    assert members_of(home) == MEMBERS
    assert marked(home)

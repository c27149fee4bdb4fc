"""A stolen machine tells nothing: real nodes with encrypted homes, at work, and their backups brought back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from node import secret
from node.demo.members import FIELDS, members
from node.keys import KeyStore
from node.storage.engine import connect
from tests.e2e import traces
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import NEVER, Cluster, Home, command, dongbo, free_port, until
from tests.e2e.writing import INSERT, write_members
from tests.loading import write_csv
from tests.resting import exposed, secret_file

pytestmark = pytest.mark.slow


SECRET, ENV_SECRET, PASSPHRASE = (
    "the root's own secret, on a stick",
    "the secret of hue in a variable",
    "a safe's words",
)
ENV = "DONGBO_TEST_SECRET"
NAME = "Zqvx Lê Thị Vô Danh"
MARKS = {"a name": NAME, "a secret": SECRET, "a secret in a variable": ENV_SECRET, "a passphrase": PASSPHRASE}
ROWS = 400


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A root whose secret is a file and a province whose secret is in the environment, both at work with members."""
    folder = tmp_path_factory.mktemp("locked")
    with pytest.MonkeyPatch.context() as patch, Cluster(folder) as made:
        patch.setenv(ENV, ENV_SECRET)
        root = Home(folder / CENTRE, CENTRE, free_port())
        key = secret_file(folder, SECRET)
        root.dongbo(
            "init", "--unit", CENTRE, "--name", "Trung ương", "--listen", f"127.0.0.1:{root.port}",
            "--encrypt", "--secret-file", str(key),
        )  # fmt: skip
        root.configure(**NEVER)
        root.start()
        made.homes[CENTRE] = root
        token = root.json("invite", "hue", "--name", "Thành phố Huế")["token"]
        child = Home(folder / PROVINCE, PROVINCE)
        child.dongbo("join", token, "--encrypt", "--secret-env", ENV)
        child.configure(**NEVER)
        made.homes[PROVINCE] = child
        child.start()
        child.dongbo("load", "member", str(members_file(folder)))
        assert child.sync()["ok"]
        yield made


def members_file(folder: Path) -> Path:
    rows = [list(row) for row in members(ROWS, seed=3, communes=["Phú Mỹ"], random_ids=True)]
    for number, row in enumerate(rows):
        row[FIELDS.index("full_name")] = f"{NAME} {number}"
    return write_csv(folder / "members.csv", FIELDS, rows)


@contextmanager
def opened(home: Home) -> Iterator[Any]:
    """A program of the unit that was given the key."""
    with closing(connect(home.database, secret.vault(home.path).database_key)) as connection:
        yield connection


def found_in(home: Home) -> set[str]:
    """What can be read of the marks by whoever holds the disk."""
    files = [path for path in (*home.path.rglob("*"), home.log_path) if path.is_file()]
    assert home.database in files
    return set[str]().union(*(traces.met(MARKS, path.read_bytes()) for path in files))


def test_an_encrypted_tree_works_as_any_other_and_nothing_can_be_read_on_its_disks(locked: Cluster) -> None:
    root, child = locked[CENTRE], locked[PROVINCE]
    assert root.json("status")["records"]["member"] == ROWS
    locked.assert_in_step()
    with opened(root) as connection:  # the centre edits: both logs are in use
        connection.execute("UPDATE member SET home_town = full_name WHERE id IN (SELECT id FROM member LIMIT 9)")
    assert child.sync()["ok"]
    for home in locked.homes.values():
        assert home.json("verify")["ok"]
        assert home.json("status")["at_rest"] == "encrypted"
        assert "on the disk" in home.dongbo("status").out
        assert (home.path / "dongbo.db-wal").stat().st_size > 0
        assert found_in(home) == set()
        assert exposed(home.path) == [
            str(path) for path in home.path.glob("control.sock") if path.stat().st_mode & 0o77
        ]
        assert all(b"ENCRYPTED" in path.read_bytes() for path in (home.path / "keys").glob("*.key"))
    locked.assert_in_step()


def test_a_secret_stands_in_no_command_line(locked: Cluster, tmp_path: Path) -> None:
    told = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")] if Path("/proc").exists() else []
    assert not any(traces.met(MARKS, line) for line in told)
    asked = dongbo("init", "--unit", "x", "--name", "x", "--home", str(tmp_path / "x"), "--encrypt")
    assert (asked.code, "--secret-file" in asked.err) == (2, True)


def test_a_command_beside_the_service_needs_no_secret_and_one_without_it_does(locked: Cluster) -> None:
    """Whoever runs the service has opened the home already; its private socket is the owner's alone."""
    child = locked[PROVINCE]
    without = {ENV: ""}
    assert dongbo("status", "--home", str(child.path), env=without).code == 0
    child.stop()
    answer = dongbo("status", "--home", str(child.path), env=without)
    assert answer.code == 1
    assert "must have between" in answer.complaint
    other = dongbo("status", "--home", str(child.path), env={ENV: "quite another secret"})
    assert "this is not the secret of this node" in other.complaint
    child.start()


def test_another_program_works_with_the_key_that_it_was_given(locked: Cluster) -> None:
    child = locked[PROVINCE]
    shown = child.dongbo("encrypt", "--show-key").out.strip()
    assert shown not in child.log
    with closing(connect(child.database, bytes.fromhex(shown))) as connection:
        assert connection.execute("SELECT count(*) FROM member").fetchone()[0] >= ROWS
    with closing(connect(child.database, bytes(32))) as connection, pytest.raises(Exception, match="not a database"):
        connection.execute("SELECT count(*) FROM member")


def test_a_service_without_its_key_disk_ends_and_says_what_to_insert(locked: Cluster) -> None:
    root = locked[CENTRE]
    key = root.path.parent / "key"
    root.stop()
    away = key.rename(key.with_name("in a pocket"))
    answer = root.dongbo("run", code=1)
    assert "insert the key disk" in answer.complaint
    away.rename(key)
    root.start()
    key.rename(away)  # taken out again: the node goes on
    assert locked[PROVINCE].sync()["ok"]
    away.rename(key)


def test_a_home_is_not_turned_under_a_running_service(line: Cluster, tmp_path: Path) -> None:
    home = line[DISTRICT]
    key = secret_file(tmp_path, SECRET)
    write_members(home, 50, seed=1)
    home.start()
    refused = home.dongbo("encrypt", "--secret-file", str(key), code=1)
    assert "another process works on" in refused.complaint
    home.stop()
    said = home.dongbo("encrypt", "--secret-file", str(key))
    assert "are encrypted" in said.out
    line.start(PROVINCE, DISTRICT)
    assert home.sync()["ok"]
    assert home.json("verify")["ok"]
    home.stop()
    home.dongbo("encrypt", "--decrypt")
    assert home.sql("SELECT count(*) FROM member") == [(50,)]


# --- backups ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def passphrase(tmp_path: Path) -> tuple[str, str]:
    return "--passphrase-file", str(secret_file(tmp_path, PASSPHRASE, "passphrase"))


def test_a_backup_under_edits_comes_back_whole_on_another_machine(
    locked: Cluster, tmp_path: Path, passphrase: tuple[str, str]
) -> None:
    child, file = locked[PROVINCE], tmp_path / "hue.backup"
    stop, entered = threading.Event(), [0]

    def edit() -> None:
        with opened(child) as connection:
            for row in members(10_000, seed=8, communes=["Phú Mỹ"], random_ids=True):
                connection.execute(INSERT, (child.unit, *row))
                entered[0] += 1
                if stop.is_set():
                    return

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        until("somebody edits", lambda: entered[0] > 20)
        before = ROWS + entered[0]
        done = child.json("backup", str(file), *passphrase)
        after = ROWS + entered[0] + 1
    finally:
        stop.set()
        editor.join()
    assert done["bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600
    assert traces.met(MARKS, file.read_bytes()) == set()
    assert child.json("status")["last_backup_at"] == done["at"]
    assert "last backup" in child.dongbo("status").out

    again = Home(tmp_path / "again", PROVINCE)
    said = again.dongbo("restore", str(file), *passphrase, "--encrypt", "--secret-file", str(secret_file(tmp_path)))
    assert "takes up a new life and fetches what happened since the backup of" in said.out
    assert f"from its parent, {CENTRE}" in said.out
    again.log_path.touch()
    assert found_in(again) == set()
    assert before <= again.json("status")["records"]["member"] <= after
    proof = again.dongbo("verify", "--json", code=None).document
    lived = epoch_of(again)  # the new life, under which pending edits are sealed already, has no certificate yet
    assert [each for each in proof["bad"] if each["epoch"] == lived] == []
    assert all("certificate" in each["reason"] for each in proof["bad"])
    assert exposed(again.path) == []


def test_a_node_out_of_a_backup_takes_up_a_new_life_and_loses_nothing(
    line: Cluster, tmp_path: Path, passphrase: tuple[str, str]
) -> None:
    """Sealed and sent after the backup; edited after the restore: both are there in the end, on all levels."""
    district, file = line[DISTRICT], tmp_path / "phu-vang.backup"
    line.start(CENTRE, PROVINCE)
    write_members(district, 40, seed=1)
    district.sync()
    write_members(district, 3, seed=2)  # pending in the backup, and sealed by the old life after it
    district.dongbo("backup", str(file), *passphrase)
    lost = write_members(district, 5, seed=3)
    district.sync()
    before = epoch_of(district)

    shutil.rmtree(district.path)
    district.dongbo("restore", str(file), *passphrase)
    district.configure(parent_address=f'"127.0.0.1:{line[PROVINCE].port}"')
    new = write_members(district, 2, seed=4)
    until(
        "everybody is in step",
        lambda: district.sync()["ok"] and line[PROVINCE].sync()["ok"] and len(all_of(district)) == 50,
    )
    line.settle(3)
    assert {*lost, *new} <= all_of(district)
    assert epoch_of(district) != before
    line.assert_in_step()
    for home in line.homes.values():
        assert len(all_of(home)) == 50
        assert home.json("verify")["ok"]
        assert home.json("status")["conflicts_open"] == 0


def all_of(home: Home) -> set[str]:
    return {key for (key,) in home.sql("SELECT id FROM member")}


def epoch_of(home: Home) -> str:
    """Of the certificate that the node shows."""
    return str(KeyStore.load(home.path).epoch)


def test_a_backup_without_a_service_is_the_same_and_a_wrong_passphrase_opens_nothing(
    line: Cluster, tmp_path: Path, passphrase: tuple[str, str]
) -> None:
    home, file = line[DISTRICT], tmp_path / "phu-vang.backup"
    write_members(home, 30, seed=2)
    said = home.dongbo("backup", str(file), *passphrase).out
    assert "Backed up phu-vang.hue.vn" in said
    other = str(secret_file(tmp_path, "quite another passphrase", "other"))
    again = Home(tmp_path / "again", DISTRICT)
    answer = again.dongbo("restore", str(file), "--passphrase-file", other, code=1)
    assert "the passphrase does not open this backup" in answer.complaint
    assert not again.path.exists()
    assert again.dongbo("restore", str(file), code=2).out == ""  # nobody is there to be asked
    again.dongbo("restore", str(file), *passphrase)
    assert again.sql("SELECT count(*) FROM member") == [(30,)]
    assert "holds a node already" in again.dongbo("restore", str(file), *passphrase, code=1).complaint
    assert "insert the key disk" in home.dongbo("backup", str(file), "--passphrase-file", "/nowhere", code=1).complaint


@pytest.mark.parametrize("beside_a_service", [True, False], ids=["with a service", "alone"])
def test_a_backup_that_is_killed_leaves_no_copy_and_the_node_as_it_was(
    line: Cluster, tmp_path: Path, passphrase: tuple[str, str], beside_a_service: bool
) -> None:
    home, target = line[DISTRICT], tmp_path / "target"
    target.mkdir()
    write_members(home, 20_000, seed=5, at_once=20_000)
    if beside_a_service:
        home.start()
    asked = [*command(), "backup", str(target / "backup"), *passphrase, "--home", str(home.path)]
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    copy = home.path / "dongbo.db.backup"
    until("the copy is made", lambda: copy.exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    if beside_a_service:
        until("the service has given it up", lambda: not copy.exists(), tail=home.tail)
    assert home.json("status")["records"]["member"] == 20_000
    assert not copy.exists()
    assert not (target / "backup").exists()
    home.dongbo("backup", str(target / "backup"), *passphrase)
    assert [path.name for path in target.iterdir()] == ["backup"]
    shutil.rmtree(target)

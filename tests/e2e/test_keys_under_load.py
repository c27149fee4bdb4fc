"""Keys change, and one is ended, while clerks write without a pause and nodes call each other all the time."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.disasters import INSERT, SOON_S, assert_sound, events, key_of, make_lively, read_status, words
from tests.e2e.processes import Cluster, Home, until
from tests.e2e.writing import write_members

pytestmark = pytest.mark.slow

PAUSE_S = 0.01
ROTATIONS = (DISTRICT, PROVINCE, DISTRICT, CENTRE, DISTRICT)
REASON = "máy bị mất trộm"

REVOKED_S = 60.0
"""Within a minute an open connection is cut."""
ROWS, RATE_KBIT_S = 10_000, "256"
"""A session with so much to say lasts half a minute."""


@dataclass
class Clerk:
    """Enters members of a unit one after another, as a program that knows nothing of us."""

    home: Home
    entered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        with closing(sqlite3.connect(self.home.database, timeout=10, isolation_level=None)) as connection:
            while not self.stop.is_set():
                key = f"t{len(self.entered)}"
                try:
                    connection.execute(INSERT, (self.home.unit, key, f"Người {key}"))
                except sqlite3.Error as error:
                    self.refused.append(str(error))
                    return
                self.entered.append(key)
                self.stop.wait(PAUSE_S)


@contextmanager
def writing(home: Home) -> Iterator[Clerk]:
    clerk = Clerk(home)
    thread = threading.Thread(target=clerk.work)
    thread.start()
    try:
        until("somebody writes", lambda: clerk.entered)
        yield clerk
    finally:
        clerk.stop.set()
        thread.join()
    assert clerk.refused == []


def ids(home: Home) -> set[str]:
    return {key for (key,) in home.sql("SELECT id FROM member WHERE unit = ?", DISTRICT)}


def count(home: Home) -> int:
    return int(home.sql("SELECT count(*) FROM member WHERE unit = ?", DISTRICT)[0][0])


def pids(tree: Cluster) -> dict[str, int]:
    return {home.unit: home.process.pid for home in tree.homes.values() if home.process and home.process.poll() is None}


@pytest.mark.timeout(400)
def test_keys_change_on_three_levels_while_everybody_works(line: Cluster) -> None:
    """No restart, no failed call, no edit lost."""
    district = line[DISTRICT]
    make_lively(line.homes.values())
    line.start()
    began = pids(line)
    with writing(district) as clerk:
        for unit in ROTATIONS:
            entered, was = len(clerk.entered), key_of(line[unit])
            said = line[unit].dongbo("rotate")
            assert f"{unit} has a new key. What was signed with the old one stays valid." in said.out
            assert said.err == "", "it is certified at once"
            assert key_of(line[unit]) != was
            assert line[PROVINCE].sync()["ok"]
            assert district.sync()["ok"]
            until("writing goes on", lambda least=entered + 20: len(clerk.entered) > least, SOON_S)
    assert len(clerk.entered) > 100
    line.assert_in_step(SOON_S)
    for home in line.homes.values():
        assert ids(home) == set(clerk.entered)
        assert events(home, "sync failed") == events(home, "session failed") == [], home.tail()
        assert len(events(home, "running")) == 1
    assert pids(line) == began
    for unit, rotated in ((DISTRICT, 3), (PROVINCE, 1), (CENTRE, 1)):
        for home in line.homes.values():
            keys = home.sql("SELECT accepted FROM _node_key WHERE unit = ?", unit)
            assert keys == [(1,)] * (1 + rotated), home.unit
        assert words(line[unit].dongbo("audit").out).count("changed this node's keys") == rotated
    assert all("look here" not in read_status(home) for home in line.homes.values())
    assert_sound(line)


@pytest.mark.timeout(400)
def test_a_key_is_revoked_in_mid_session_and_its_unit_comes_back_by_invitation(line: Cluster) -> None:
    """The open connection is cut within a minute and both ends say why; what had come stays; what is sealed afterwards
    counts nowhere; after the invitation it does."""
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    make_lively(line.homes.values())
    district.configure(rate_kbit_s=RATE_KBIT_S)
    write_members(district, ROWS, seed=7, at_once=ROWS)
    line.start(CENTRE, PROVINCE)
    assert province.sync()["ok"]
    district.start()
    until("a first part has come", lambda: count(province) > 0, SOON_S, line.tails)

    said = province.dongbo("revoke", DISTRICT, "--reason", REASON)
    revoked = time.monotonic()
    assert "The keys of phu-vang.hue.vn have ended. What came from it until now stays valid." in said.out
    assert "To let it come back with new keys: dongbo invite phu-vang --recover" in said.out
    assert events(province, "session") == [], "the session is under way still, or this shows nothing"
    good = count(province)
    refusal = f"hue.vn has ended this key of phu-vang.hue.vn: {REASON}"
    until("the open connection is cut", lambda: refusal in province.log, REVOKED_S, line.tails)
    until("the district's operator reads why", lambda: refusal in district.log, REVOKED_S, line.tails)
    assert time.monotonic() - revoked < REVOKED_S
    assert events(province, "session") == [], "it was cut, and did not come to its end"
    assert 0 < good < ROWS

    refused = district.dongbo("sync", code=1)
    assert refused.complaint == f"dongbo: {refusal}"
    assert "ask the parent unit; it lets the unit come back with 'dongbo invite LABEL --recover'" in refused.err
    told = read_status(district)
    assert f"{PROVINCE} (127.0.0.1:{province.port}): failing" in told
    assert refusal in told
    until("the province has passed it on", lambda: count(centre) == good, SOON_S, line.tails)
    assert f"{DISTRICT} Huyện Phú Vang revoked" in read_status(province)
    assert f"The key of {DISTRICT} was revoked: {REASON}" in read_status(province)
    assert f"The key of {DISTRICT} was revoked: {REASON}" in read_status(centre)
    assert f"{DISTRICT} Huyện Phú Vang district revoked" in words(province.dongbo("units").out)
    assert "revoked a unit's key" in words(province.dongbo("audit").out)

    district.sql(INSERT, DISTRICT, "sau", "Kẻ Trộm")
    until("it is sealed", lambda: not district.sql("SELECT 1 FROM _pending LIMIT 1"), SOON_S, district.tail)
    tried = len(events(district, "sync failed"))
    until("it is called with again", lambda: len(events(district, "sync failed")) > tried + 1, SOON_S, district.tail)
    assert (count(province), count(centre)) == (good, good), "nobody takes it"

    token = province.dongbo("invite", "phu-vang", "--recover").out.strip()
    district.stop(60)
    district.configure(rate_kbit_s="0.0")
    done = district.dongbo("recover", "--from-parent", token, deadline_s=SOON_S)
    assert "phu-vang.hue.vn (Huyện Phú Vang) is back, with new keys." in done.out
    vouch = "does not count at other units yet: it does as soon as one more record is entered or changed here"
    assert vouch in done.out
    district.start()
    assert vouch in read_status(district)
    assert "wait and change nothing, for the sake of its key" in read_status(province)
    district.sql(INSERT, DISTRICT, "về", "Chủ Cũ")
    line.assert_in_step(SOON_S)
    assert [count(home) for home in line.homes.values()] == [ROWS + 2] * 3, "what the machine holds it vouches for"
    assert vouch not in read_status(district)
    assert "Huyện Phú Vang in step" in read_status(province)
    assert_sound(line)

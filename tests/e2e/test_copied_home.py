"""One home runs on two machines at once, and clerks edit at both. The unit above certifies one and tells the other what
to do; whichever is kept in the end, and in whatever order, what was entered at either is at all levels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import DISTRICT, PROVINCE
from tests.e2e.disasters import SOON_S, Ledger, assert_sound, events, key_of, make_lively, read_status
from tests.e2e.processes import Cluster, Home, until

pytestmark = pytest.mark.slow

COPY = "this home is a copy of one that has gone on, or an old image of it"


def is_told(home: Home) -> bool:
    """Whether the machine's operator reads that it runs a copy."""
    return COPY in read_status(home)


def keep_after_all(province: Home, home: Home) -> None:
    """What the operator was told to do to keep this machine. The other one may call in that very moment."""
    token, was = province.dongbo("invite", "phu-vang", "--recover").out.strip(), key_of(home)
    home.stop()
    done = home.dongbo("recover", "--from-parent", token, code=None)
    if done.code == 0:
        assert "phu-vang.hue.vn (Huyện Phú Vang) is back, with new keys." in done.out
    else:
        assert done.complaint == "dongbo: phu-vang.hue.vn has called anew"
        assert "the new keys are certified and in place: 'dongbo run' fetches what the parent holds" in done.err
    assert key_of(home) != was
    home.start()


@pytest.mark.timeout(400)
def test_of_a_home_that_runs_on_two_machines_both_keep_all_that_was_entered(line: Cluster, tmp_path: Path) -> None:
    province, first, ledger = line[PROVINCE], line[DISTRICT], Ledger()
    make_lively(line.homes.values())
    line.start()
    for number in "12":
        ledger.enter(first, number, f"Đảng viên {number}")
    line.assert_in_step(SOON_S)
    first.stop(60)
    second = Home(Path(shutil.copytree(first.path, tmp_path / "second machine")), DISTRICT)
    machines = {"máy một": first, "máy hai": second}
    for who, home in machines.items():  # before either has met anybody: two branches of one stream
        ledger.edit(home, "1", "cell" if home is first else "position", f"{who} sửa")
        ledger.edit(home, "2", "note", f"{who} ghi chú")
        ledger.enter(home, who, f"Người của {who}")
    try:
        first.start(), second.start()
        until(
            "the operator of one reads that it runs a copy",
            lambda: any(map(is_told, machines.values())),
            SOON_S,
            lambda: line.tails() + second.tail(),
        )
        refused, kept = (first, second) if is_told(first) else (second, first)
        assert not is_told(kept)
        told = refused.dongbo("sync", code=1)
        assert COPY in told.complaint
        assert "switch one of the two machines off; to keep this one, ask the parent unit" in told.err
        assert "('dongbo invite LABEL --recover' there) and run 'dongbo recover --from-parent'" in told.err
        assert f"{PROVINCE} (127.0.0.1:{province.port}): failing" in read_status(refused)

        ledger.edit(refused, "1", "birth_place", "ở máy bị từ chối")  # waits there
        ledger.edit(kept, "1", "other_name", "ở máy được nhận")
        line.homes[DISTRICT] = kept
        line.assert_in_step(SOON_S)

        keep_after_all(province, refused)
        ledger.edit(kept, "2", "home_town", "chưa ai hay máy kia được giữ")
        until("now the other one is told", lambda: is_told(kept), SOON_S, lambda: line.tails() + kept.tail())
        assert not is_told(refused)
        line.homes[DISTRICT] = refused
        line.assert_in_step(SOON_S)

        keep_after_all(province, kept)
        until("and so again", lambda: is_told(refused), SOON_S, lambda: line.tails() + refused.tail())
        refused.stop(60)
        line.homes[DISTRICT] = kept
        line.assert_in_step(SOON_S)
        ledger.edit(kept, "1", "family_background", "một máy thôi")
        line.assert_in_step(SOON_S)
        ledger.assert_kept(line.homes.values())
        assert events(kept, "a new life begins")
        assert_sound(line)
    finally:
        first.end(), second.end()

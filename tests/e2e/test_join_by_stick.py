"""A unit that has never had a line: it joins, enters a member and is in step, with files that are carried alone."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import Home, differences, until

ENTER = "INSERT INTO member (unit, id, full_name, birth_date, sex, edited_by) VALUES (?, '1', ?, '1950', 'nam', 'Lan')"


def words(said: str) -> list[str]:
    """The lines of words, which stand apart."""
    return [line.strip() for line in said.splitlines() if line.startswith("    ") and len(line.split()) == 8]


def carried(centre: Home, province: Home, stick: Path) -> None:
    """Up, and the answer home."""
    up, down = stick / "up", stick / "down"
    up.mkdir(parents=True)
    down.mkdir()
    province.dongbo("export", "--to", "vn", "--out", str(up))
    centre.dongbo("import", str(up), "--out", str(down))
    province.dongbo("import", str(down))


def test_a_unit_joins_and_is_in_step_without_any_service(tmp_path: Path) -> None:
    centre, province = Home(tmp_path / "vn", "vn"), Home(tmp_path / "hue", "hue.vn")
    stick = tmp_path / "stick"
    stick.mkdir()
    request, grant = str(stick / "request"), str(stick / "grant")
    centre.dongbo("init", "--unit", "vn", "--name", "Trung ương")

    asked = province.dongbo("join", "--request", request, "--unit", "hue.vn", "--name", "Thành phố Huế")
    unasked = centre.dongbo("approve", request, "--out", grant, code=1)
    assert "nothing was done" in unasked.err
    assert "--yes" in unasked.err
    assert not (stick / "grant").exists()
    approved = centre.dongbo("approve", request, "--out", grant, "--yes")
    assert words(asked.out) == words(unasked.err) == words(approved.err)

    unasked = province.dongbo("join", "--grant", grant, code=1)
    assert not (province.path / "node.toml").exists()
    joined = province.dongbo("join", "--grant", grant, "--yes")
    assert words(approved.out) == words(unasked.err) == words(joined.err)
    assert len(words(approved.out)) == 2
    centre.dongbo("import", str(stick))

    assert "lives by stick" in province.dongbo("sync", code=1).complaint
    province.sql(ENTER, "hue.vn", "Nguyễn Văn An")
    for at in range(2):
        carried(centre, province, tmp_path / f"stick {at}")
    assert centre.sql("SELECT full_name FROM member") == [("Nguyễn Văn An",)]
    statuses = {home.unit: home.json("status") for home in (centre, province)}
    assert differences(statuses) == []
    assert statuses["hue.vn"]["parent"]["state"] == "ok"
    assert "by stick" in province.dongbo("status").out


def test_a_service_without_an_address_says_so_once_and_calls_nobody(tmp_path: Path) -> None:
    centre, province = Home(tmp_path / "vn", "vn"), Home(tmp_path / "hue", "hue.vn")
    request, grant = str(tmp_path / "request"), str(tmp_path / "grant")
    centre.dongbo("init", "--unit", "vn", "--name", "Trung ương")
    province.dongbo("join", "--request", request, "--unit", "hue", "--parent", "vn", "--name", "Huế")
    centre.dongbo("approve", request, "--out", grant, "--yes", "--json")
    province.dongbo("join", "--grant", grant, "--yes", "--every", "0.2")
    try:
        province.start()
        province.sql(ENTER, "hue.vn", "Nguyễn Văn An")
        sealed = "SELECT 1 FROM _batch JOIN _stream ON _stream.no = stream WHERE scope = 'hue.vn'"
        until("the edit is sealed", lambda: province.sql(sealed), tail=province.tail)
        assert province.json("export", "--to", "vn", "--out", str(tmp_path))["batches"] == 1
        province.stop()
    finally:
        province.end()
    assert province.log.count("lives by stick") == 1
    assert "sync failed" not in province.log

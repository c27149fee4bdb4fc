"""A registry change through the command line: published at the root, late by hand at a district, equal in the end."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home
from tests.test_registry_change import AWARDS


def member(home: Home, key: str, **values: str) -> None:
    row = {"unit": DISTRICT, "id": key, "full_name": "Nguyễn Văn Mẫu", "birth_date": "1950", "sex": "nam", **values}
    home.sql(f"INSERT INTO member ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())


def by_hand(home: Home) -> None:
    path = home.path / "node.toml"
    text = path.read_text(encoding="utf-8")
    assert 'registry = "at once"' in text
    path.write_text(text.replace('registry = "at once"', 'registry = "by hand"'), encoding="utf-8")


def test_a_district_by_hand_is_late_by_three_rounds(line: Cluster, tmp_path: Path) -> None:
    centre, province, district = (line[unit] for unit in (CENTRE, PROVINCE, DISTRICT))
    by_hand(district)
    line.start(CENTRE, PROVINCE)
    member(district, "1")
    line.settle(1)

    file, lossy = tmp_path / "next.toml", tmp_path / "lossy.toml"
    file.write_text(AWARDS, encoding="utf-8")
    lossy.write_text(AWARDS.replace('"nam", "nữ"', '"nam"'), encoding="utf-8")
    refused = centre.dongbo("registry", "apply", str(lossy), "--yes", code=1)
    assert "member.sex: values cannot be taken away" in refused.err
    assert "--yes" in centre.dongbo("registry", "apply", str(file), code=2).err, "nobody can be asked here"
    assert "only the root publishes" in district.dongbo("registry", "apply", str(file), "--yes", code=1).complaint
    published = centre.dongbo("registry", "apply", str(file), "--yes")
    assert "member.nick_name is new: Bí danh (text, latest)" in published.out, "the plan is shown first"
    assert "Version 2 is in force here" in published.out
    assert centre.json("registry", "show")["version"] == 2

    for turn in "abc":
        line.settle(1)
        centre.sql("UPDATE member SET nick_name = ? WHERE id = '1'", turn)
        province.sql("INSERT OR REPLACE INTO award (unit, id, name) VALUES (?, '1', ?)", DISTRICT, turn)
        district.sql("UPDATE member SET note = ? WHERE id = '1'", turn)
        member(district, turn)
    line.settle()
    assert centre.sql("SELECT id, note, nick_name FROM member ORDER BY id")[0] == ("1", "c", "c")
    late = district.json("status")
    assert (late["registry_version"], late["waiting_batches"] > 0, late["frozen"]) == (1, True, [])
    assert {cause for each in late["waiting_for"] for cause in each["for"]} >= {
        "registry version 2 (run 'dongbo registry apply')"
    }
    assert "Registry version 2 has come and is not in force here" in district.dongbo("status").out
    plan = district.json("registry", "plan")
    assert (plan["from"], plan["to"], plan["ok"], plan["waiting_batches"]) == (1, 2, True, late["waiting_batches"])

    done = district.json("registry", "apply", "--yes")
    assert done == {"ok": True, "version": 2, "published": False, "applied_batches": late["waiting_batches"]}
    assert district.sql("SELECT note, nick_name, (SELECT name FROM award) FROM member WHERE id = '1'") == [("c",) * 3]
    line.settle(1)
    line.assert_in_step()

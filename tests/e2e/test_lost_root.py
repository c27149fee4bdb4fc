"""The day the root key is lost: the steps of docs/trust.md, tried."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from node.keys import KeyStore
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home

pytestmark = pytest.mark.slow


INSERT = "INSERT INTO member (unit, id, full_name, birth_date, sex) VALUES (?, ?, ?, '1990', 'nam')"


def members(home: Home) -> list[tuple[str, str]]:
    return home.sql("SELECT unit, full_name FROM member ORDER BY unit, full_name")  # type: ignore[return-value]


def test_without_the_root_s_ca_key_nothing_stops_and_nobody_new_comes(line: Cluster, tmp_path: Path) -> None:
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    kept = tmp_path / "safe.key"
    (centre.path / "keys" / "ca.key").rename(kept)
    line.start(CENTRE, PROVINCE)
    district.sql(INSERT, DISTRICT, "1", "Nguyễn Thị Một")
    line.settle()
    assert members(centre) == [(DISTRICT, "Nguyễn Thị Một")]
    refused = centre.dongbo("invite", "da-nang", "--name", "Đà Nẵng", code=1)
    assert "the CA key of vn is not here" in refused.err
    assert not province.json("rotate")["certified"]
    kept.rename(centre.path / "keys" / "ca.key")  # out of the safe, or a backup
    centre.dongbo("invite", "da-nang", "--name", "Đà Nẵng")
    province.sync()
    line.settle()
    assert len(centre.sql("SELECT * FROM _node_key WHERE unit = ? AND accepted = 1", PROVINCE)) == 2


def test_where_the_root_is_gone_for_good_the_units_go_over_to_a_new_tree(line: Cluster, tmp_path: Path) -> None:
    """No backup, no key: the units below go on with each other, and carry what they have into a new tree."""
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    line.start(CENTRE, PROVINCE)
    district.sql(INSERT, DISTRICT, "1", "Nguyễn Thị Một")
    province.sql(INSERT, PROVINCE, "1", "Trần Văn Hai")
    line.settle()
    centre.kill()
    shutil.rmtree(centre.path)
    district.sql(INSERT, DISTRICT, "2", "Lê Thị Ba")
    district.sync()  # the links below the root need no root
    assert (DISTRICT, "Lê Thị Ba") in members(province)
    carried = {}
    for home in (province, district):
        carried[home.unit] = tmp_path / f"{home.unit}.csv"
        home.dongbo("dump", "member", str(carried[home.unit]), "--unit", home.unit)
    province.stop()
    (tmp_path / "new").mkdir()
    with Cluster(tmp_path / "new") as new:
        root = new.root(CENTRE, "Trung ương")
        root.start()
        above = new.join(root, "hue", "Thành phố Huế", listens=True)
        above.start()
        new.join(above, "phu-vang", "Huyện Phú Vang")
        for unit in (
            DISTRICT,
            PROVINCE,
        ):  # the province's file has its district's rows too: the same, nothing is doubled
            new[unit].dongbo("load", "member", str(carried[unit]))
        new.settle()
        assert (
            members(root)
            == members(above)
            == sorted(
                [
                    (DISTRICT, "Nguyễn Thị Một"),
                    (DISTRICT, "Lê Thị Ba"),
                    (PROVINCE, "Trần Văn Hai"),
                ]
            )
        )
        new.assert_in_step()
    proof = district.json("verify")  # the old home still proves who said what
    assert proof["ok"]


def test_a_root_from_an_old_image_gets_everything_again_and_certifies_itself(line: Cluster, tmp_path: Path) -> None:
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    image = tmp_path / "image"
    shutil.copytree(centre.path, image)
    line.start(CENTRE, PROVINCE)
    centre.sql(INSERT, DISTRICT, "5", "Phạm Thị Năm")  # sealed after the image was made
    district.sql(INSERT, DISTRICT, "1", "Nguyễn Thị Một")
    line.settle(3)
    centre.kill()
    shutil.rmtree(centre.path)
    shutil.copytree(image, centre.path)
    before = KeyStore.load(centre.path).epoch
    centre.start()
    for _ in range(3):
        line.settle()
    assert KeyStore.load(centre.path).epoch != before, centre.tail()
    assert members(centre) == members(province) == [(DISTRICT, "Nguyễn Thị Một"), (DISTRICT, "Phạm Thị Năm")]
    centre.sql("UPDATE member SET note = 'thấy' WHERE id = '5'")
    line.settle(2)
    assert district.sql("SELECT note FROM member WHERE id = '5'") == [("thấy",)]
    line.assert_in_step()

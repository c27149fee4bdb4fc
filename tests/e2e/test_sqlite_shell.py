"""A clerk's edit in the sqlite3 shell at a district reaches the centre, and is proven there to be the district's."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from conflict.values import UnitPath
from node.keys import KeyStore
from node.local import context_of
from node.storage.batches import all_batches
from node.storage.certificates import path_of
from node.storage.engine import open_engine
from node.storage.proving import decoded
from node.storage.registries import registry_for
from sync_engine.batch import SealedBatch, parse_batch
from sync_engine.certificates import verify_node_path
from sync_engine.errors import BadSignature
from sync_engine.verify import check_origin
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home
from tests.e2e.writing import write_members

SHELL = shutil.which("sqlite3")


def shell(home: Home, statement: str) -> None:
    done = subprocess.run(
        [str(SHELL), "-bail", str(home.database)], input=f".timeout 5000\n{statement};\n", text=True,
        capture_output=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def batches_that_write(home: Home, origin: str, key: str, town: str) -> list[SealedBatch]:
    """Stored batches of one origin that carry ``home_town = town`` for one member, with the origin's path proven."""
    context, engine = context_of(KeyStore.load(home.path)), open_engine(home.database)
    found = []
    with engine.connect() as connection:
        connection.execution_options(reads_only=True)
        for _no, data in all_batches(connection):
            batch = parse_batch(data)
            registry = registry_for(connection, context, batch)
            if batch.header.stream.origin != origin or registry is None:
                continue
            for entries in decoded(batch, registry):
                towns = entries.columns.get("home_town", [])
                if any(each == (key, town) for each in zip(entries.ids, towns, strict=False)):
                    found.append(batch)
    engine.dispose()
    return found


def certificate_of(home: Home, batch: SealedBatch) -> tuple[bytes, ...]:
    engine = open_engine(home.database)
    with engine.connect() as connection:
        path = path_of(connection, batch.header.stream.origin, batch.header.stream.epoch)
    engine.dispose()
    assert path is not None
    return path


@pytest.mark.skipif(SHELL is None, reason="the sqlite3 shell is not installed")
@pytest.mark.parametrize("service", [True, False], ids=["while its service runs", "while its service does not run"])
def test_an_edit_in_the_shell_is_at_the_centre_after_two_syncs_and_proven_there(line: Cluster, service: bool) -> None:
    district, centre = line[DISTRICT], line[CENTRE]
    ids = write_members(district, 20, seed=3)
    line.start(CENTRE, PROVINCE, *([DISTRICT] if service else []))
    district.sync()
    town = "Làng Chuồn, xã Phú An"
    shell(district, f"update member set home_town='{town}' where unit='{DISTRICT}' and id='{ids[7]}'")

    assert district.sync()["ok"]
    assert line[PROVINCE].sync()["ok"]

    assert centre.sql("SELECT home_town FROM member WHERE unit = ? AND id = ?", DISTRICT, ids[7]) == [(town,)]
    (batch,) = batches_that_write(centre, DISTRICT, ids[7], town)
    certified = verify_node_path(certificate_of(centre, batch), KeyStore.load(centre.path).tree_id)
    assert certified.unit == UnitPath(DISTRICT)
    assert certified.sha256 == KeyStore.load(district.path).certified.sha256
    check_origin(batch, certified)
    province = KeyStore.load(line[PROVINCE].path).certified
    with pytest.raises(BadSignature):
        check_origin(batch, province)
    assert centre.json("verify")["ok"]
    line.assert_in_step()

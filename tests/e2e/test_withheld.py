"""A province that keeps back one district's edits, with real processes: what the centre sees, and the words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, until
from tests.e2e.writing import write_members

KEEPS_BACK = """
import sys
import node.shipping
from node.cli.main import main
from node.storage import outbox

link, unit = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]
honest, told = outbox.held_on_link, {}

def held_on_link(connection, context, child):
    found = honest(connection, context, child)
    if child != link:
        return found
    return {stream: told.setdefault(stream, head) if stream.origin == unit else head for stream, head in found.items()}

outbox.held_on_link = node.shipping.held_on_link = held_on_link
main()
"""
"""The product, run by somebody who has changed it: what one unit makes from now on it keeps from its parent."""

OFTEN_HOURS, SOON_HOURS = "0.0003", "0.0008"  # one second and three: what a day is, for this test


def start_dishonest(home: Home, folder: Path, unit: str) -> None:
    script = folder / "keeps_back.py"
    script.write_text(KEEPS_BACK, encoding="utf-8")
    with home.log_path.open("ab") as log:
        home._log_from = log.tell()
        arguments = [sys.executable, str(script), home.unit, unit, "run", "--home", str(home.path)]
        home.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    until(f"{home.unit} runs", home._is_running, tail=home.tail)


def district_seen_from(home: Home) -> dict[str, object]:
    (found,) = [each for each in home.json("status")["units"] if each["unit"] == DISTRICT]
    assert isinstance(found, dict)
    return found


def test_a_stream_that_a_relay_withholds_is_noticed_by_the_level_above(line: Cluster, tmp_path: Path) -> None:
    centre, province, district = line[CENTRE], line[PROVINCE], line[DISTRICT]
    district.configure(heartbeat_hours=OFTEN_HOURS)
    centre.configure(heartbeat_hours=OFTEN_HOURS, withheld_hours=SOON_HOURS)
    line.start(CENTRE, PROVINCE)
    write_members(district, 3, seed=1)
    line.settle()
    assert district_seen_from(centre)["missing_batches"] == 0
    province.stop()

    start_dishonest(province, tmp_path, DISTRICT)
    province.sync()
    write_members(district, 4, seed=2)

    def is_noticed() -> bool:
        district.sync(), province.sync()
        seen = district_seen_from(centre)
        return seen["withheld"] is True and seen["state"] == "stale"

    until("the centre misses what the district has signed for", is_noticed, tail=line.tails)
    assert centre.sql("SELECT count(*) FROM member") == [(3,)]
    assert district_seen_from(centre)["relay"] == PROVINCE
    words = " ".join(centre.dongbo("status").out.split())
    assert f"Thành phố Huế ({PROVINCE}) passes on less than Huyện Phú Vang ({DISTRICT}) has signed." in words
    assert f"Batches of Huyện Phú Vang ({DISTRICT}) missing since" in words
    told = district.json("status")["confirmed"]
    assert (told["parent"]["batches"], told["centre"]["batches"], told["centre"]["of"]) == (2, 1, 2)
    words = " ".join(district.dongbo("status").out.split())
    assert f"the province ({PROVINCE}) has confirmed all 2 batches" in words
    assert f"the centre ({CENTRE}) has confirmed 1 of 2 batches" in words

    province.stop(), centre.stop()
    centre.configure(withheld_hours="24.0")
    line.start(CENTRE, PROVINCE)

    def is_mended() -> bool:
        district.sync(), province.sync()
        return bool(district.json("status")["confirmed"]["centre"]["batches"] == 2)

    until("the centre has confirmed all", is_mended, tail=line.tails)
    assert centre.sql("SELECT count(*) FROM member") == [(7,)]
    seen = district_seen_from(centre)
    assert (seen["state"], seen["missing_batches"]) == ("ok", 0)
    assert "passes on less" not in centre.dongbo("status").out

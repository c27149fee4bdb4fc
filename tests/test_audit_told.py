"""What the audit's command shows of the records, and in which words."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from node import auditing
from node.bulk.source import BadInput
from sync_engine.audit import Act
from tests.test_audit import Office, office

__all__ = ["office"]


async def test_the_command_shows_the_last_records_those_since_a_day_and_proves_them(office: Office) -> None:
    for _ in range(120):
        await auditing.record(office.node, Act.START)
    shown = await office.do("audit")
    assert (len(shown["records"]), shown["more"]) == (100, True)
    assert len((await office.do("audit", all=True))["records"]) == 121
    today, tomorrow = datetime.now(), datetime.now() + timedelta(days=1)  # noqa: DTZ005 - a day of this place
    assert len((await office.do("audit", since=today.strftime("%d/%m/%Y")))["records"]) == 121
    assert (await office.do("audit", since=tomorrow.strftime("%Y-%m-%d")))["records"] == []
    with pytest.raises(BadInput):
        await office.do("audit", since="hôm qua")
    proof = (await office.do("audit", verify=True))["proof"]
    assert (proof["ok"], proof["records"], proof["faults"]) == (True, 121, [])
    assert (await office.do("audit", verify=True, head=proof["head"]))["proof"]["ok"]
    await office.sql("DELETE FROM _audit WHERE no > 100")
    cut = (await office.do("audit", verify=True, head=proof["head"]))["proof"]
    assert not cut["ok"]
    assert [each["verdict"] for each in cut["anchors"]] == ["cut"]
    for nonsense in ("x", "1:zz", "-1:" + "00" * 32, "99:ab"):
        with pytest.raises(BadInput):
            await office.do("audit", verify=True, head=nonsense)


def test_every_act_has_its_words() -> None:
    from node.messages import say

    for act in Act:
        assert say(f"audit.{act}")

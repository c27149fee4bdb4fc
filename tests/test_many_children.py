"""A province with 173 units below it and a centre above: all units call at the same moment, again and again.

Real services, real TLS and real homes; the units live in two processes, each running many of them side by side.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from node.line import AT_ONCE, SILENT_S
from tests.e2e.processes import until
from tests.many.province import PROVINCE, Storm, Tree, digests_at, founded, open_files

UNITS = 173
ROWS, ROWS_BIG, BIG = 30, 3_000, 4
"""New members of a unit before each storm; of the few big ones; how many these are."""

STORMS = 2
NOTE = "Đã đối chiếu tại tỉnh"
"""What the province writes into one row of each unit before the second storm."""

EDIT = "UPDATE member SET note = ? WHERE (unit, id) IN (SELECT unit, min(id) FROM member WHERE unit <> ? GROUP BY unit)"

SAMPLE = 8
"""Units whose digests are compared with the province's and the centre's."""

MEMORY_MB = 220
"""What the province may need at most. At rest it has some 110; the pages of eight connections to its database make
32, four unpacked batches 36, and open connections some more. All sessions at once made 229 here, 302 where the big ones
had 5,000 rows, and 560 for 48 units with 2,000 rows each."""

GROWTH_MAX = 1.3
"""How many large batches are unpacked at the same moment is chance: up to four, of 9 MB."""
FILES_MAX = 70
"""Open files of the province a moment after a storm. At rest it has some 45; a connection for each unit makes 218."""

STATUS_S = 5.0
REPEATED_MAX = 0.1

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="memory and files are read from /proc"),
]


@dataclass
class Day:
    """The tree after its storms, and what they were like."""

    tree: Tree
    big: list[str]
    rows: int = 0
    storms: list[Storm] = field(default_factory=list)

    @property
    def small(self) -> list[str]:
        return [unit for unit in self.tree.units if unit not in self.big]

    def storm(self, seed: int) -> None:
        new = {unit: ROWS_BIG if unit in self.big else ROWS for unit in self.tree.units}
        self.tree.write(new, seed)
        if len(self.storms) == 1:
            self.tree.province.sql(EDIT, NOTE, PROVINCE)
        self.rows += sum(new.values())
        self.storms.append(self.tree.storm())
        behind = self.tree.arrive(self.rows)
        until("its connections are closed", lambda: open_files(self.tree.province) <= FILES_MAX, deadline_s=10)
        print(f"\n{self.storms[-1]}; all at the centre {behind:.1f} s later")


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    with founded(tmp_path_factory.mktemp("many"), UNITS) as tree:
        made = Day(tree, tree.units[:: UNITS // BIG][:BIG])
        for seed in range(STORMS):
            made.storm(seed)
        yield made


def test_every_call_of_a_storm_ends_well_at_once_or_when_repeated(day: Day) -> None:
    for storm in day.storms:
        assert not storm.broken
        assert [call["unit"] for call in storm.calls if not call["ok"] or call["refused"]] == []
        assert {fault.partition(":")[0] for fault in storm.faults} <= {"LinkFault"}
        assert len(storm.faults) <= REPEATED_MAX * UNITS, storm.faults


def test_small_units_do_not_wait_for_the_end_of_a_storm(day: Day) -> None:
    for storm in day.storms:
        took = storm.seconds_of(day.small)
        assert statistics.median(took) < 0.75 * storm.seconds
        assert took[len(took) // 10] < 0.4 * storm.seconds


def test_clerks_and_operators_of_the_province_work_on_meanwhile(day: Day) -> None:
    for storm in day.storms:
        assert not storm.clerk_refused
        assert len(storm.clerk_waits) > 10
        assert storm.operator_waits
        assert max(storm.operator_waits) < STATUS_S


def test_a_storm_needs_no_more_memory_than_the_one_before(day: Day) -> None:
    *before, last = [storm.peak_mb for storm in day.storms]
    assert last < MEMORY_MB
    assert last < max(before) * GROWTH_MAX  # the first fills caches


def test_what_the_units_wrote_is_the_same_at_unit_province_and_centre(day: Day) -> None:
    assert set(day.tree.counts("true").values()) == {STORMS * ROWS, STORMS * ROWS_BIG}
    sample = day.small[:: len(day.small) // SAMPLE]
    units = day.tree.digests(sample)
    assert {report["rows"] for report in units.values()} == {STORMS * ROWS}
    for home in (day.tree.province, day.tree.centre):
        for unit, report in digests_at(home, sample).items():
            assert report["heads"] == units[unit]["heads"]
            common = report["digests"].keys() & units[unit]["digests"].keys()
            assert {name: report["digests"][name] for name in common} == {
                name: units[unit]["digests"][name] for name in common
            }
            assert "member.address" in common


def test_units_that_call_and_say_nothing_hold_up_nobody(day: Day) -> None:
    """Twice as many as are served at once."""
    silent = day.small[: 2 * AT_ONCE]
    with day.tree.hanging(silent):
        storm = day.tree.storm(units=day.small[2 * AT_ONCE :][:10], watched=False)
    print(f"\nbehind {len(silent)} silent units: {storm}")
    assert not storm.faults
    assert SILENT_S < storm.seconds < 4 * SILENT_S


def test_edits_of_the_province_have_come_down_to_every_unit(day: Day) -> None:
    assert set(day.tree.counts(f"note = '{NOTE}'").values()) == {1}


def test_then_there_is_nothing_to_say(day: Day) -> None:
    nothing = day.tree.storm(watched=False)
    print(f"\nnothing new: {nothing}")
    assert {(call["sent_batches"], call["received_batches"]) for call in nothing.calls} == {(0, 0)}
    assert not nothing.faults
    assert nothing.seconds < min(storm.seconds for storm in day.storms)

"""What the demo shows: members entered at districts reach the centre; a line breaks, people work on, it comes back.

Role: the acts in their order, told as they happen; what was seen goes to ``proof``, which says whether it is so.
Reach: node.demo.tree, watch; the shipped registry. Invariant: nothing is told that was not read from a node or a table.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from node.demo.tree import DemoFailed, Place, Tree, together
from node.demo.watch import differences, read, restless, sealed
from node.figures import clock, day, decimal, number, size
from node.messages import say
from node.setup import read_registry

POLL_S = 0.25
STALL_S = 45.0
"""Without any progress for so long, the demo has failed."""

ROWS_A_SECOND = 150
"""Far fewer than any machine writes or digests: only there so that nothing waits for ever."""

SHARES = (50, 30, 20)
"""How the members are spread over the districts, in hundredths."""


class Voice(Protocol):
    """Where the story is told."""

    def line(self, text: str = "") -> None: ...

    def head(self, text: str) -> None: ...

    def progress(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Person:
    """A made-up member that the story speaks of."""

    home: Place
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Edit:
    """One statement of plain SQL: who changed what of whom. ``column`` is None for a delete."""

    place: Place
    person: Person
    column: str | None = None
    value: str | None = None
    alone: bool = False
    """In a second of its own, so that people can tell it from its rival."""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Cast:
    """Whom the story is about: two people of one district are told twice, one is deleted, one is the centre's."""

    two_fields: Person
    one_field: Person
    disputed: Person
    deleted: Person
    from_above: Person


@dataclass(frozen=True, slots=True)
class Played:
    """What happened while the line was down."""

    cast: Cast
    edits: list[Edit]


class Story:
    """Tells it. Every act raises DemoFailed where something does not come true in time."""

    def __init__(self, tree: Tree, voice: Voice, members: int) -> None:
        self.tree, self.voice, self.members = tree, voice, members
        self.registry = read_registry(None)
        self.table = self.registry.tables["member"]
        self.within_s = STALL_S + members / ROWS_A_SECOND

    # --- the acts ---

    async def set_up(self) -> None:
        """Five units, five processes."""
        self.voice.head(say("demo.head_tree"))
        self.voice.progress(say("demo.making"))
        began = time.monotonic()
        await self.tree.make()
        for place in self.tree.places:
            indent = "  " * place.unit.count(".")
            where = say("demo.listens", address=place.listen) if place.port else ""
            self.voice.line(f"   {indent + place.name:26} {place.unit:20} {where}".rstrip())
        self.voice.line(say("demo.made", seconds=decimal(time.monotonic() - began)))

    async def fill(self) -> None:
        """A program at each district enters its members; the centre has them soon after."""
        tree, voice = self.tree, self.voice
        voice.head(say("demo.head_fill"))
        voice.line(say("demo.fill", count=number(self.members)))
        began = time.monotonic()
        filling = asyncio.create_task(together(*(self._enter(*each) for each in enumerate(tree.districts))))
        try:
            await self._all_members(filling)
            entered = await filling
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
        seconds = time.monotonic() - began
        for place, rows in zip(tree.districts, entered, strict=True):
            batches, octets = sealed(place.database, place.unit)[place.unit]
            voice.line(
                say(
                    "demo.entered",
                    name=f"{place.name:20}",
                    rows=f"{number(rows):>8}",
                    batches=f"{batches:2}",
                    size=f"{size(octets):>9}",
                    each=round(octets / max(1, rows)),
                )
            )
        voice.line(say("demo.filled", seconds=decimal(seconds)))

    async def _enter(self, index: int, place: Place) -> int:
        first, second, _ = (self.members * share // 100 for share in SHARES)
        count = (first, second, self.members - first - second)[index]
        district = place.district
        job = {
            "unit": place.unit,
            "members": count,
            "seed": index + 1,
            "communes": [each.name for each in district.communes] if district else [],
            "province": self.tree.province.name,
        }
        return int((await self.tree.write(place, job, within_s=self.within_s))["rows"])

    async def _all_members(self, filling: asyncio.Task[list[int]]) -> None:
        best, deadline = -1, time.monotonic() + STALL_S
        while best < self.members:
            if filling.done():
                filling.result()  # a failed program is told at once
            brief = await self.tree.ask(self.tree.root, "status", {"brief": True})
            if brief["records"]["member"] > best:
                best, deadline = brief["records"]["member"], time.monotonic() + STALL_S
                self.voice.progress(say("demo.arriving", count=number(best), of=number(self.members)))
            if time.monotonic() > deadline:
                raise DemoFailed(say("demo.stalled", count=number(best), of=number(self.members)))
            await asyncio.sleep(POLL_S)

    def choose(self) -> Cast:
        """People whose records suit the story: full members with a full date of birth."""
        one, two, three = self._people(self.tree.districts[0], 3)
        return Cast(
            one, two, three, self._people(self.tree.districts[1], 1)[0], self._people(self.tree.districts[2], 1)[0]
        )

    def _people(self, place: Place, count: int) -> list[Person]:
        rows = read(
            place.database,
            "SELECT id, full_name FROM member WHERE unit = ? AND status = 'official' AND length(birth_date) = 10"
            " ORDER BY id LIMIT ?",
            (place.unit, count),
        )
        if len(rows) < count:
            raise DemoFailed(say("demo.too_few", name=place.name))
        return [Person(place, *row) for row in rows]

    async def line_down(self, cast: Cast) -> Played:
        """The province is out of reach; three levels change records, some of them the same ones."""
        root, hue, district = self.tree.root, self.tree.province, self.tree.districts[0]
        self.voice.head(say("demo.head_down", name=hue.name))
        self.voice.line(say("demo.down"))
        self.voice.progress(say("demo.stopping", name=hue.name))
        await asyncio.to_thread(self.tree.stop, hue)
        script = [
            Edit(district, cast.two_fields, "home_town", "Làng An Truyền, Thành phố Huế", alone=True),
            Edit(root, cast.two_fields, "position", "Ủy viên Ban Thường vụ Huyện ủy"),
            Edit(hue, cast.one_field, "status", "transferred", alone=True),
            Edit(district, cast.one_field, "status", "exempt"),
            Edit(district, cast.disputed, "birth_date", "1958-03-12", alone=True),
            Edit(hue, cast.disputed, "birth_date", "1985-03-12"),
            Edit(cast.deleted.home, cast.deleted),
            Edit(root, cast.from_above, "government_position", "Phó Chủ tịch Ủy ban nhân dân"),
        ]
        return Played(cast, [await self._do(edit) for edit in script])

    async def _do(self, edit: Edit) -> Edit:
        key = (edit.person.home.unit, edit.person.id)
        job: dict[str, Any]
        if edit.column is None:
            job = {"sql": "DELETE FROM member WHERE unit = ? AND id = ?", "values": [*key]}
            what = say("demo.deleted")
        else:
            job = {
                "sql": f"UPDATE member SET {edit.column} = ? WHERE unit = ? AND id = ?",
                "values": [edit.value, *key],
            }
            what = f"{self.table.field(edit.column).label}: {shown(edit.column, edit.value)}"
        done = await self.tree.write(edit.place, job)
        if done["rows"] != 1:
            raise DemoFailed(say("demo.not_written", name=edit.place.name, person=edit.person.name))
        self.voice.line(f"   {clock(done['at'])}  {edit.place.name:18} {edit.person.name:18} {what}")
        if edit.alone:
            await asyncio.sleep(1.05 - time.time() % 1)
        return replace(edit, at=done["at"])

    async def line_up(self, is_so: Callable[[], Sequence[str]]) -> dict[str, Any]:
        """The province's service starts again; waits until every node rests, agrees, and ``is_so`` names nothing."""
        hue = self.tree.province
        self.voice.head(say("demo.head_up", name=hue.name))
        self.voice.progress(say("demo.starting", name=hue.name))
        began = time.monotonic()
        await self.tree.start(hue)
        reports = await self._settle(is_so)
        self.voice.line(say("demo.up", seconds=decimal(time.monotonic() - began)))
        return reports

    async def _settle(self, is_so: Callable[[], Sequence[str]]) -> dict[str, Any]:
        deadline = time.monotonic() + self.within_s
        while True:
            open_points = [*restless(await self.reports(brief=True)), *is_so()]
            if not open_points:
                reports = await self.reports(brief=False)
                open_points = [*restless(reports), *differences(reports)]
                if not open_points:
                    return reports
            if time.monotonic() > deadline:
                raise DemoFailed(
                    say("demo.not_settled", seconds=int(self.within_s)), hint="\n        ".join(open_points[:8])
                )
            self.voice.progress(say("demo.settling", count=len(open_points), first=open_points[0]))
            await asyncio.sleep(POLL_S)

    async def reports(self, *, brief: bool) -> dict[str, Any]:
        """What every node says of itself, by unit."""
        asked = (self.tree.ask(each, "status", {"brief": brief}, within_s=self.within_s) for each in self.tree.places)
        return dict(zip((each.unit for each in self.tree.places), await together(*asked), strict=True))

    # --- words ---

    def label(self, column: str) -> str:
        """A field as people know it, and its column."""
        return f"{self.table.field(column).label} ({column})"


def shown(column: str, value: str | None) -> str:
    """A value as people write it."""
    if value is None:
        return "-"
    return day(value) if column == "birth_date" else value

"""Whether what the demo promises is so, and what of it people are told.

Role: the facts that must hold at every node of a record's path, read from its tables by plain SQL; the journal; the
digests. What does not hold is named in words.
Reach: node.demo.story, watch. Invariant: nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conflict.values import level_of
from node.demo.story import Edit, Person, Played, Story, shown
from node.demo.tree import DemoFailed, Place
from node.demo.watch import Reports, columns_compared, filled, holders, read, rows_of, scopes_of, sealed, withheld_from
from node.figures import clock, number, size
from node.messages import say
from sync_engine.names import CATALOG, REGISTRY

DIGEST_SHOWN = 12


class Proof:
    """Of one telling of the story."""

    def __init__(self, story: Story, played: Played) -> None:
        self.story, self.cast, self.edits = story, played.cast, played.edits
        self.tree, self.voice = story.tree, story.voice

    # --- what must be so in the tables ---

    def missing(self) -> list[str]:
        """What is not yet so in some node's tables."""
        return [fault for edit in self.winners() for place in self._path(edit) for fault in self._at(place, edit)]

    def winners(self) -> list[Edit]:
        """The edits that every table must show: all but those that another outweighs."""
        lost = {(self.cast.one_field.id, "exempt"), self._earlier_birth_date()}
        return [edit for edit in self.edits if (edit.person.id, edit.value) not in lost]

    def _earlier_birth_date(self) -> tuple[str, str | None]:
        rivals = [edit for edit in self.edits if edit.person == self.cast.disputed]
        return (self.cast.disputed.id, min(rivals, key=lambda edit: edit.at).value)

    def _path(self, edit: Edit) -> list[Place]:
        return self.tree.path_of(edit.person.home)

    def _at(self, place: Place, edit: Edit) -> list[str]:
        person = edit.person
        column = edit.column or "id"
        found = read(
            place.database, f"SELECT {column} FROM member WHERE unit = ? AND id = ?", (person.home.unit, person.id)
        )
        expected = [] if edit.column is None else [(edit.value,)]
        if found == expected:
            return []
        what = self.story.label(column) if edit.column else say("demo.deleted")
        return [say("demo.not_so", name=place.name, person=person.name, what=what)]

    # --- what is told ---

    async def tell(self, reports: Reports) -> None:
        """All of it. Raises DemoFailed for whatever is not as promised."""
        if faults := self.missing():
            raise DemoFailed(faults[0])
        self._two_fields()
        journals = await self._journals()
        self._told_conflict(journals, self.cast.one_field, "status", "settled")
        self._told_conflict(journals, self.cast.disputed, "birth_date", "open")
        for edit in self.edits:
            names = self._names(self._path(edit))
            if edit.column is None:
                self.voice.line(say("demo.gone", person=edit.person.name, name=edit.place.name, nodes=names))
            if edit.person == self.cast.from_above:
                what = f"{self.story.table.field(edit.column or '').label}: {edit.value}"
                self.voice.line(
                    say("demo.came_down", person=edit.person.name, by=edit.place.name, what=what, nodes=names)
                )
        self._same(reports)

    def _two_fields(self) -> None:
        person = self.cast.two_fields
        self.voice.line(say("demo.two_fields", person=person.name))
        for edit in self.edits:
            if edit.person == person and edit.column:
                self.voice.line(
                    say(
                        "demo.kept",
                        label=f"{self.story.table.field(edit.column).label:20}",
                        value=f"{shown(edit.column, edit.value)}",
                        name=f"{edit.place.name:18}",
                        at=clock(edit.at),
                    )
                )
        self.voice.line(say("demo.both", nodes=self._names(self.tree.path_of(person.home))))

    async def _journals(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        path = self.tree.path_of(self.cast.one_field.home)
        return {place.unit: await self.tree.ask(place, "conflicts", {}) for place in path}

    def _told_conflict(
        self, journals: Mapping[str, Sequence[Mapping[str, Any]]], person: Person, column: str, state: str
    ) -> None:
        """One conflict: the same number, winner and loser in the journal of every node of the record's path."""
        register = self.story.table.register_of(column).name
        entries = [
            next((each for each in journal if each["key"] == person.id and each["field"] == register), None)
            for journal in journals.values()
        ]
        first = entries[0]
        if first is None or any(each is None or _said(each) != _said(first) for each in entries):
            raise DemoFailed(say("demo.journals_differ", person=person.name))
        if first["state"] != state or len(first["writes"]) != 2:
            raise DemoFailed(say("demo.journal_wrong", person=person.name, state=first["state"]))
        self.voice.line(say("demo.conflict", person=person.name, label=self.story.label(column)))
        for write in sorted(first["writes"], key=lambda write: not write["won"]):
            value = write["value"]
            value = value[-1] if isinstance(value, list) else value
            mark = say(f"demo.{state}_{'won' if write['won'] else 'lost'}")
            name = next(each.name for each in self.tree.places if each.unit == write["origin"])
            self.voice.line(f"      {shown(column, value):14} {name:20} {clock(write['at'])}   {mark}")
        self.voice.line(say(f"demo.policy_{first['policy']}"))
        self.voice.line(say("demo.same_journal", number=first["id"], nodes=self._names(self.tree.path_of(person.home))))

    def _names(self, places: Sequence[Place]) -> str:
        return ", ".join(place.name for place in places)

    # --- that all hold the same ---

    def _same(self, reports: Reports) -> None:
        """Digests node by node, then the rows themselves, read by plain SQL."""
        voice = self.voice
        voice.head(say("demo.head_same"))
        voice.line(say("demo.digest_is"))
        heads = (say("demo.scope"), say("demo.rows"), say("demo.digest"), say("demo.nodes"))
        voice.line("   {:32} {:>7}  {:12}  {}".format(*heads))
        for scope in scopes_of(reports):
            nodes = holders(scope, reports)
            if len(nodes) > 1:
                one = next(each for each in reports[nodes[0]]["scopes"] if each["scope"] == scope)
                rows = number(one["rows"]) if one["rows"] else "-"
                at = " = ".join(unit.partition(".")[0] for unit in nodes)
                voice.line(f"   {self._what(scope):32} {rows:>7}  {one['digest'][:DIGEST_SHOWN]}  {at}")
        voice.line(say("demo.columns", count=columns_compared(reports)))
        self._rows()
        self._withheld()
        self._travelled()

    def _what(self, scope: str) -> str:
        """A scope in words."""
        if scope.endswith(CATALOG):
            return say("demo.of_catalog")
        if scope.endswith(REGISTRY):
            return say("demo.of_registry")
        place = next(each for each in self.tree.places if each.unit == scope)
        return say("demo.of_members" if place.district else "demo.of_units", name=place.name)

    def _travelled(self) -> None:
        batches = octets = 0
        for place in self.tree.places:
            for scope, (count, total) in sealed(place.database, place.unit).items():
                if any(district.unit == scope for district in self.tree.districts):
                    batches, octets = batches + count, octets + total
        self.voice.line(say("demo.batches", batches=batches, size=size(octets)))

    def _rows(self) -> None:
        table, total = self.story.table, 0
        for district in self.tree.districts:
            for place in self.tree.path_of(district):
                level = level_of(place.unit)
                here = rows_of(place.database, table, district.unit, level)
                if here != rows_of(district.database, table, district.unit, level):
                    raise DemoFailed(say("demo.rows_differ", name=place.name, unit=district.unit))
            total += rows_of(district.database, table, district.unit, 0).count
        if total != self.story.members - 1:
            raise DemoFailed(say("demo.wrong_count", count=number(total), expected=number(self.story.members - 1)))
        self.voice.line(say("demo.rows_same", count=number(total)))

    def _withheld(self) -> None:
        """What a level may not read has not come there."""
        root, table = self.tree.root, self.story.table
        unit = self.tree.districts[0].unit
        columns = withheld_from(table, unit, level_of(root.unit))
        for district in self.tree.districts:
            if filled(root.database, table, district.unit, columns):
                raise DemoFailed(say("demo.leaked", name=root.name))
        labels = ", ".join(table.field(name).label.lower() for name in columns)
        self.voice.line(say("demo.withheld", labels=labels, name=root.name))


def _said(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """What all nodes must say alike of a conflict; when they noted it is their own affair."""
    return (entry["id"], entry["state"], entry["policy"], entry["shown"], entry["writes"])

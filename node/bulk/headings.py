"""Which column of a file is which field: by name or by label, in any case and any normal form.

Role: from a header to the columns it names; an unknown one refuses the file, because what it holds would be lost.
Reach: the registry's model, node.bulk.source. Invariant: a table's own names come before its labels, and those before
the common words for the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from node.bulk.source import Unreadable
from node.messages import say
from node.storage.named import folded
from sync_engine.registry import Table

UNIT, ID, BY = "unit", "id", "edited_by"
LABELS = {UNIT: "Đơn vị", ID: "Mã", BY: "Người sửa"}
"""What people call the columns that every table has; a field's own label goes before."""

_RUNNING_NUMBER = ("stt", "tt", "số tt", "số thứ tự")


@dataclass(frozen=True, slots=True)
class Layout:
    """``columns`` by place in the file: a column's name, or None for one that is left out. ``unnamed`` are the places
    whose header is empty: nothing may stand beneath them."""

    columns: tuple[str | None, ...]
    unnamed: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name is not None)


class Headings:
    """The names of one table's columns, as people may write them."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._columns: dict[str, str | None] = dict.fromkeys(_RUNNING_NUMBER)
        self._columns |= {folded(label): name for name, label in LABELS.items()}
        doubtful: set[str] = set()
        labels: dict[str, str] = {}
        for each in table.fields:
            label = folded(each.label)
            doubtful |= {label} & labels.keys()
            labels[label] = each.name
        self._columns |= {label: name for label, name in labels.items() if label and label not in doubtful}
        self._columns |= {folded(name): name for name in (UNIT, ID, BY, *(each.name for each in table.fields))}

    def is_known(self, cell: str) -> bool:
        return folded(cell) in self._columns

    def label_of(self, name: str) -> str:
        """What a person calls a column."""
        return (self.table.field(name).label if self.table.has(name) else LABELS.get(name, name)) or name

    def heading_of(self, name: str) -> str:
        """The label, or the name where the label would not lead back to it."""
        label = self.label_of(name)
        return label if self._columns.get(folded(label)) == name else name

    def layout(self, header: Sequence[str], skip: Sequence[str]) -> Layout:
        """Raises Unreadable, naming what is wrong with the header."""
        skipped = {folded(each): each for each in skip}
        columns: list[str | None] = []
        unnamed: list[int] = []
        unused = set(skipped)
        if not any(folded(cell) in self._columns or folded(cell) in skipped for cell in header):
            # No cell of it is repeated: where the header is missing, it is somebody's record.
            raise Unreadable(say("load.no_header", table=self.table.name), hint=say("load.no_header.hint"))
        for place, cell in enumerate(header):
            heading = folded(cell)
            name = None
            if heading in skipped:
                unused.discard(heading)
            elif not heading:
                unnamed.append(place)
            elif heading in self._columns:
                name = self._columns[heading]
            else:
                raise self._unknown(cell, heading)
            if name is not None and name in columns:
                raise Unreadable(say("load.twice", column=self.label_of(name)))
            columns.append(name)
        for heading in unused:
            raise Unreadable(say("load.nothing_to_skip", column=skipped[heading]))
        if ID not in columns:
            raise Unreadable(say("load.no_id"), hint=say("load.no_id.hint"))
        return Layout(tuple(columns), tuple(unnamed))

    def _unknown(self, cell: str, heading: str) -> Unreadable:
        near = get_close_matches(heading, [each for each in self._columns if self._columns[each]], 1, 0.6)
        shown = " ".join(cell.split())[:60]
        hint = say("load.unknown.skip", column=shown)
        if near:
            name = str(self._columns[near[0]])
            hint = say("load.unknown.near", label=self.heading_of(name), name=name) + " " + hint
        return Unreadable(say("load.unknown", column=shown, table=self.table.name), hint=hint)

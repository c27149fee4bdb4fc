"""The operators at their queues: they settle conflicts, overturn what was settled, decide about held values and twins.

Role: decide as ``dongbo conflicts resolve`` and ``dongbo quarantine`` do, at random levels that are entitled to it, and
tell the truth what was sealed; the rogue, a node that signs edits which its own tables would refuse.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from sqlalchemy import Connection

from conflict.values import Hold, StreamId
from node.storage.context import Context
from node.storage.decisions import Choice, NotDecided, refuse, release, resolve
from node.storage.engine import execute
from node.storage.inbox import apply_waiting, next_ready
from node.storage.registers import load_keys
from node.storage.registries import current_registry
from node.storage.review import Wanted, conflicts, quarantine
from node.storage.sealing import Statement, seal_statement
from sync_engine.batch import SectionKind
from sync_engine.entries import Entries
from tests.simulation.checks import require
from tests.simulation.editor import NAMES, Editor
from tests.simulation.model import PERSON, TABLES, level, within
from tests.simulation.process import Process
from tests.simulation.truth import Truth

Entry = dict[str, Any]


class Settler:
    """``editor`` makes texts that exist nowhere else; ``count`` is told what was decided, ``say`` as well."""

    def __init__(
        self, rng: Random, truth: Truth, editor: Editor, count: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        self.rng, self.truth, self.editor, self.count, self.say = rng, truth, editor, count, say
        self.serial = 0
        self.errands: dict[str, Callable[[Process], None]] = {
            "decision": partial(self.decide, share=0.5),
            "overturning": self.overturn,
            "rogue": self.rogue,
        }

    # --- what waits ---

    def waits(self, node: Process) -> list[Entry]:
        """What a person of this node may decide about: conflicts, and held values (those have a reason)."""
        held = [each for each in node.read(quarantine, node.context) if each["may_decide"]]
        return [*node.read(conflicts, node.context, Wanted(only_open=True)), *held]

    # --- deciding ---

    def decide(self, node: Process, share: float = 1.0) -> None:
        """Decide about a share of what waits. Everything pending is sealed before, so that nothing is sealed in
        passing."""
        while node.seal_one():
            pass
        self.catch_up(node)
        for entry in self.waits(node):
            if self.rng.random() < share:
                self._decide(node, entry)

    def overturn(self, node: Process) -> None:
        """Think again about something in the journal."""
        while node.seal_one():
            pass
        told = [each for each in node.read(conflicts, node.context) if each["may_settle"] and each["field"] != "_twin"]
        waits = {self._about(each) for each in told if each["state"] == "open"}
        past = [each for each in told if self._about(each) not in waits]
        if past:
            self._resolve(node, self.rng.choice(past), "overturned")

    def _about(self, entry: Entry) -> tuple[str, ...]:
        return entry["table"], entry["unit"], entry["key"], entry["field"]

    def _decide(self, node: Process, entry: Entry) -> None:
        found = [each for each in self.waits(node) if each["id"] == entry["id"]]
        if not found:
            return  # an earlier decision has ended it
        entry = found[0]  # and may have changed who waits
        if "reason" in entry:
            self._judge(node, entry)
        elif entry["field"] == "_twin":
            self._rename(node, entry)
        else:
            self._resolve(node, entry, "resolved")
        left = [each for each in self.waits(node) if each["id"] == entry["id"]]
        require(not left, lambda: f"I1: {node.unit} has decided about {entry}, and it waits still")

    def _judge(self, node: Process, held: Entry) -> None:
        releases = held["reason"] != "rule" and self.rng.random() < 0.5
        work, what = (release, "released") if releases else (refuse, "refused")
        self._sealed(node, work, held["id"], self._by(held), self._why(held))
        self.count(f"{what}, {held['reason']}")
        self.say(f"{node.unit} has {what} {held['field']} of {held['table']} {held['unit']} {held['key']}")

    def _resolve(self, node: Process, entry: Entry, what: str) -> None:
        choice, expected = self._choice(entry)
        told = self._sealed(node, resolve, choice)
        require(
            expected is None or _plain(told["value"]) == _plain(expected),
            lambda: f"I1: {node.unit} kept {told['value']!r} where {expected!r} was chosen",
        )
        self.count(what)
        self.say(f"{node.unit} has {what} {entry['field']} of {entry['table']} {entry['unit']} {entry['key']}")

    def _choice(self, entry: Entry) -> tuple[Choice, Any]:
        rng, by, why = self.rng, self._by(entry), self._why(entry)
        name = entry["fields"][0] if entry["fields"] else ""
        if name in ("", "badges", "trade", "home") or rng.random() < 0.6:
            kept = rng.choice(entry["writes"])
            if name != TABLES[entry["table"]].required or kept["value"]:
                return Choice(entry["id"], keep=kept["n"], by=by, why=why), kept["value"]
        if name in ("rank", "count"):
            return Choice(entry["id"], value="7", by=by, why=why), 7
        if name == TABLES[entry["table"]].required:
            return Choice(entry["id"], value=NAMES[0], by=by, why=why), NAMES[0]
        text = self.editor.marker(entry["unit"], name)
        value = text if len(entry["fields"]) == 1 else {name: text}
        return Choice(entry["id"], value=value, by=by, why=why), text if isinstance(value, str) else None

    def _rename(self, node: Process, entry: Entry) -> None:
        """Whoever waits gets an id of their own, which some other row may have had."""
        self.serial += 1
        waits = next(each["value"] for each in entry["writes"] if not each["won"])
        for key in (f"r{self.rng.randrange(self.editor.ids)}", self.rng.choice(["", f"n{self.serial}"])):
            choice = Choice(entry["id"], new_id=key, by=self._by(entry), why="another person")
            try:
                told = self._sealed(node, resolve, choice)
            except NotDecided as fault:
                require("another record's" in str(fault), lambda f=fault: f"I1: a twin is not renamed: {f}")  # type: ignore[misc]
                continue
            break
        self.count("renamed")
        self.say(f"{node.unit} calls who waited under {entry['key']} {told['value']}")
        fields = ", ".join(waits)
        found = node.query(
            f"SELECT {fields} FROM {entry['table']} WHERE unit = ? AND id = ?", entry["unit"], told["value"]
        )
        have = [dict(zip(waits, row, strict=True)) for row in found]
        codes = ("trade", "place", "home")  # held anew, where the code of it is known to nobody
        same = have and all(
            _plain(have[0][name]) in [_plain(value), *[None] * (name in codes)] for name, value in waits.items()
        )
        require(bool(same), lambda: f"I1: {node.unit} renamed {waits}, and shows {have}")

    def _by(self, entry: Entry) -> str:
        """Who decides. It goes with the rows of its table, and no further."""
        return self.editor.marker(entry["unit"], "label") if entry["table"] == "thing" else "Lan"

    def _why(self, entry: Entry) -> str:
        """The reason goes to those who may read what was decided about."""
        return self.editor.marker(entry["unit"], entry["fields"][0]) if entry["fields"] else "as told on the telephone"

    # --- sealing ---

    def _sealed(self, node: Process, work: Any, *args: Any) -> Any:
        """What a decision seals, though it may only confirm what is shown; the truth learns it from the batch."""
        before = len(self.truth.batches)
        self.truth.telling = node.name
        try:
            told = node.write(work, node.context, *args)
        finally:
            self.truth.telling = None
        sealed = len(self.truth.batches) - before
        require(sealed == 1, lambda: f"I1: a decision of {node.unit} was sealed in {sealed} batches")
        return told

    def catch_up(self, node: Process) -> None:
        """What a session begins with."""
        while (stream := node.read(next_ready, node.context)) is not None:
            node.write(apply_waiting, node.context, stream)

    # --- the rogue ---

    def rogue(self, node: Process) -> None:
        """A node's own program signs what its table would refuse: an edit of a field that others write, or of a
        required one to nothing."""
        if level(node.unit) < 2:
            return
        while node.seal_one():
            pass
        rows = node.query(
            "SELECT name, id, identity FROM _row JOIN _scope ON _scope.no = scope WHERE tbl = ? AND shown = 1"
            " ORDER BY name, id",
            PERSON.number,
        )
        rows = [row for row in rows if within(row[0], node.unit)]
        if rows:
            scope, key, who = self.rng.choice(rows)
            name = self.rng.choice(["card", "card", "name"])
            value = None if name == "name" else self.editor.marker(scope, "card")
            self._sealed(node, forbidden, (scope, key, who), {name: value, "note": self.rng.choice(["x", None])})
            self.say(f"{node.unit} signs {name} = {value} of person {scope} {key}, which it may not")
            self.count("forbidden edit")


def forbidden(
    connection: Connection, context: Context, row: tuple[str, str, bytes], values: dict[str, str | None]
) -> None:
    """Seal an edit of one row without asking its table."""
    scope, key, who = row
    registry = current_registry(connection, context)
    table = registry.tables[PERSON.name]
    number = execute(connection, "SELECT no FROM _scope WHERE name = ?", (scope,)).scalar_one()
    loaded, _ = load_keys(connection, context, table, number, scope, [key])
    state = loaded[key].states[who]
    registers = tuple(register for register in table.registers if register.name in values)
    times = [write.time for register in registers for kept in state.register(register).values() for write in kept]
    time = max([context.now_ms() << 16, *(each + 1 for each in times)])
    entries = Entries(table, SectionKind.ROWS, [key], [who], [time], registers=registers)
    entries.columns = {name: [value] for name, value in values.items()}
    for register in registers:
        if values[register.name] is None and table.field(register.name).required:
            entries.broken[register.name] = {0: Hold.RULE}
    stream = StreamId(context.unit, context.epoch, table.scope_of(scope))
    seal_statement(connection, context, registry, Statement(stream, [entries]))


def _plain(value: Any) -> Any:
    """Lists and tuples alike, and alike as the table has them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value

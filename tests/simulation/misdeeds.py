"""Seeded defects of held values and of persons' decisions; the others are in defects.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conflict.register import add_write
from conflict.values import Hold, Write
from node.storage import adoption, apply, decisions, held
from node.storage.codes import CODES_CAME
from node.storage.journal import Journal
from node.storage.meta import set_meta
from sync_engine import batch as batches
from sync_engine import merge
from sync_engine.batch import SectionKind
from tests.simulation.defects import Places


def held_writes_drive_out() -> Places:
    def add(kept: frozenset[Write], new: Write, seen: Any) -> frozenset[Write]:
        return add_write(frozenset(write for write in kept if not seen.saw(write)), new, seen)

    return [(merge, "add_write", add)]


def codes_release_nothing() -> Places:
    return [(adoption, "judge_again", lambda connection, _context: set_meta(connection, CODES_CAME, ""))]


def released_beside_what_it_had_seen() -> Places:
    def admitted(kept: frozenset[Write], write: Write, _seen: Any) -> frozenset[Write]:
        return kept - {write} | {replace(write, held=Hold.NONE)}

    return [(held, "admitted", admitted)]


def what_is_shown_is_not_confirmed() -> Places:
    real = decisions._seal_value

    def seal_value(connection: Any, context: Any, place: Any, value: Any, by: Any, decision: Any) -> None:
        row = merge.shown_row(place.table, place.state)
        shown = tuple(row[each.name] for each in place.register.fields)
        if shown != (value if place.register.is_group else (value,)):
            real(connection, context, place, value, by, decision)

    return [(decisions, "_seal_value", seal_value)]


def who_waited_stays() -> Places:
    real = decisions._seal

    def seal(connection: Any, context: Any, place: Any, sections: Any) -> Any:
        entered = any(each.kind is SectionKind.ROWS and each.is_new(0) for each in sections)
        return real(connection, context, place, sections[:1] if entered else sections)

    return [(decisions, "_seal", seal)]


def whoever_enters_again_may_write_all() -> Places:
    real = merge._merge_insert

    def merge_insert(table: Any, state: Any, entry: Any, batch: Any, seen: Any) -> Any:
        return real(table, state, replace(entry, barred=frozenset()), batch, seen)

    return [(merge, "_merge_insert", merge_insert)]


def reasons_go_everywhere() -> Places:
    return [(batches, "DECISION", "(no such column)")]


def unknown_codes_are_shown() -> Places:
    return [(apply, "hold_unknown", lambda *_given: None)]


def nobody_waits_for_an_id() -> Places:
    real = merge.project

    def project(*given: Any) -> Any:
        merged = real(*given)
        merged.conflicts = {place: each for place, each in merged.conflicts.items() if place[1] != merge.TWIN}
        return merged

    return [(merge, "project", project)]


def overwritten_in_silence() -> Places:
    return [(apply, "note_overwritten", lambda *_given: 0)]


def driven_out_in_silence() -> Places:
    """A held value that a later edit drives out is in no journal."""
    return [(Journal, "_note_held", lambda *_given: None)]

"""Brings a version of the registry into force here: tables, triggers, notes of old masks, and what rows show.

Role: adopt what has come, by itself or by hand; publish at the root.
Reach: storage tables, sync_engine. Invariant: one transaction, with nothing pending in it: masks follow the registry's
order, and rows that are shown anew must not be sealed as somebody's edits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection

from node.storage.apply import KEYS_AT_ONCE, applying
from node.storage.capture import EDITED, WORD_BITS, install_capture, is_wide, mask_bits
from node.storage.codes import CODES_CAME
from node.storage.context import Context
from node.storage.engine import bulk, execute
from node.storage.held import judge_again
from node.storage.meta import get_meta, set_meta
from node.storage.registers import KeySaver, load_keys
from node.storage.registries import SHOW_ANEW, current_registry, is_by_hand, newest_fit
from node.storage.tables import install_tables
from sync_engine.merge import project
from sync_engine.names import unit_of
from sync_engine.registry import Registry, Table
from sync_engine.registry_plan import shows_otherwise


def reinstall(connection: Connection, context: Context) -> None:
    """Make what the version in force needs and is missing, or was made by other software."""
    registry = current_registry(connection, context)
    install_tables(connection, registry)
    install_capture(connection, registry, context.unit)


def adopt_registry(connection: Connection, context: Context) -> None:
    """Bring the newest version that fits into force, unless this is done by hand."""
    newest = None if is_by_hand(connection, context) else newest_fit(connection, context)
    if newest is not None:
        bring_into_force(connection, context, newest)


def bring_into_force(connection: Connection, context: Context, newer: Registry) -> None:
    """Tables and columns are added, never taken away; triggers are new; rows with rivals are shown by the new
    rules, the first of them at once."""
    older = current_registry(connection, context)
    set_meta(connection, "registry", str(newer.version))
    install_tables(connection, newer)
    for table in older.all_tables.values():
        _translate_notes(connection, table, newer.all_tables[table.name])
    install_capture(connection, newer, context.unit)
    changed = {name for name, table in older.tables.items() if shows_otherwise(table, newer.tables[name])}
    if changed:
        left = [each for each in _left(connection) if each[0] not in changed]
        set_meta(connection, SHOW_ANEW, json.dumps([*left, *((name, 0, "") for name in sorted(changed))]))
        show_some(connection, context)


def catch_up(connection: Connection, context: Context) -> None:
    """What ``is_due`` says is due: held values to be looked at again, rows to be shown anew, or a version that waited
    for more than its turn."""
    if get_meta(connection, CODES_CAME):
        judge_again(connection, context)
    elif get_meta(connection, SHOW_ANEW):
        show_some(connection, context)
    else:
        adopt_registry(connection, context)


# --- notes of rows that were set aside ---


def _translate_notes(connection: Connection, old: Table, new: Table) -> None:
    """Rows that may not travel yet keep their notes, whose masks count registers in the old order."""
    places = [new.register(each.name).index for each in old.registers]
    if places == list(range(len(places))) and is_wide(old) == is_wide(new):
        return
    kept = execute(
        connection,
        "SELECT unit, tbl, id, kind, mask, first, last, CAST(image AS BLOB) FROM _pending WHERE tbl = ?",
        (-old.number,),
    ).all()
    moved = [
        (unit, tbl, key, kind, _moved(old, new, places, mask) if kind == "E" else mask, first, last, text)
        for unit, tbl, key, kind, mask, first, last, image in kept
        for text in [_moved_image(old, new, places, image)]
    ]
    execute(connection, "DELETE FROM _pending WHERE tbl = ?", (-old.number,))
    bulk(
        connection,
        "INSERT INTO _pending (unit, tbl, id, kind, mask, first, last, image)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT))",
        moved,
    )


def _moved(old: Table, new: Table, places: Sequence[int], mask: int | str) -> int | str:
    bits = sum(1 << places[bit] for bit in mask_bits(old, mask))
    if not is_wide(new):
        return bits
    words = range(-(-len(new.registers) // WORD_BITS))
    return ",".join(str(bits >> WORD_BITS * word & (1 << WORD_BITS) - 1) for word in words)


def _moved_image(old: Table, new: Table, places: Sequence[int], image: bytes | None) -> bytes | None:
    """A deleted row's image names the masks of the edits before it."""
    marker = f'"{EDITED}":"'.encode()
    start = -1 if image is None else image.rfind(marker)
    if image is None or start < 0:
        return image
    named = json.loads(image[start + len(marker) - 1 : -1])
    masks = (_moved(old, new, places, int(each) if each.isdigit() else each) for each in str(named).split())
    return image[: start + len(marker)] + " ".join(map(str, masks)).encode() + b'"}'


# --- rows with rivals ---


RIVALS = (
    "EXISTS (SELECT 1 FROM _write WHERE scope = _row.scope AND tbl = _row.tbl AND id = _row.id"
    " GROUP BY identity, register, element HAVING count(*) > 1)"
)
"""SQL: whether a row holds rival writes. All others show their only write, whatever the rule."""


def show_some(connection: Connection, context: Context) -> None:
    """Project the next rows that hold rivals by the new rules: few enough that other programs need not wait long. What
    is left is noted, and goes on with ``catch_up``."""
    tables = _left(connection)
    while tables:
        name, scope, last = tables[0]
        table = current_registry(connection, context).tables[name]
        found = execute(connection, "SELECT no, name FROM _scope WHERE no >= ? ORDER BY no", (scope,)).first()
        if found is None:
            tables = tables[1:]
            continue
        ids = _rivals_after(connection, found[0], table, last if found[0] == scope else "")
        if not ids:
            tables = [(name, found[0] + 1, ""), *tables[1:]]
            continue
        with applying(connection):
            _show_keys(connection, context, table, (found[0], found[1]), ids)
        tables = [(name, found[0], ids[-1]), *tables[1:]]
        break
    set_meta(connection, SHOW_ANEW, json.dumps(tables) if tables else "")


def _rivals_after(connection: Connection, scope: int, table: Table, last: str) -> list[str]:
    """The next keys of one scope that hold rivals, along the index of contested rows."""
    sql = (
        "SELECT DISTINCT id FROM _row WHERE scope = ? AND tbl = ? AND contested = 1 AND id > ?"
        f" AND {RIVALS} ORDER BY id LIMIT ?"
    )
    return list(execute(connection, sql, (scope, table.number, last, KEYS_AT_ONCE)).scalars())


def _left(connection: Connection) -> list[tuple[str, int, str]]:
    """The tables that are being shown anew, and how far: (table, scope, id)."""
    return [(name, scope, last) for name, scope, last in json.loads(get_meta(connection, SHOW_ANEW) or "[]")]


def _show_keys(
    connection: Connection, context: Context, table: Table, scope: tuple[int, str], ids: Sequence[str]
) -> None:
    number, name = scope
    unit = unit_of(name)
    loaded, heads = load_keys(connection, context, table, number, unit, ids)
    saver = KeySaver(table, number, unit, {head: no for no, head in heads.items()}, context.now_ms())
    for key in ids:
        merged = project(table, name, key, loaded[key].states)
        saver.add(key, merged, loaded[key], None)
        saver.journal.judge_anew(merged, loaded[key].live)
    saver.save(connection)

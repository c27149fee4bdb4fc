"""Edits that their origin may have sealed before, in another life.

Role: find, for a batch about to be merged, what its origin sealed of the same rows under other epochs.
Reach: storage, sync_engine.merge. Source: docs/decisions/0025. Invariant: of two batches that may say the same edit one
is marked ``again``, so whichever is merged later looks for the other; nobody else looks at anything.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TypeAlias

from sqlalchemy import Connection

from conflict.values import StreamId
from node.storage.batches import undamaged
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.registries import registry_of
from sync_engine.batch import BatchHeader
from sync_engine.entries import Entries
from sync_engine.errors import RemoteFault
from sync_engine.merge import Former, view
from sync_engine.verify import decode

FormerEntries: TypeAlias = Mapping[str, Mapping[str, Sequence[Former]]]
"""By table and id."""


def former_entries(
    connection: Connection,
    context: Context,
    header: BatchHeader,
    sections: Sequence[Entries],
    merged: Container[int] | None = None,
) -> FormerEntries:
    """What the origin of a batch sealed of the same rows in other lives, and is merged here (``merged``: of that, the
    batches of these local numbers); one batch in memory at a time. Batches that are damaged or not readable here are
    passed over: they were merged when they were not."""
    nos = [no for no in _candidates(connection, header.stream, again=header.again) if merged is None or no in merged]
    wanted = {section.table.name: set(section.ids) for section in sections} if nos else {}
    for section in sections if nos else ():
        wanted[section.table.name] |= set(section.ids)
    found: dict[str, dict[str, list[Former]]] = {}
    for no in nos:
        digest, data = execute(connection, "SELECT hash, data FROM _batch WHERE no = ?", (no,)).one()
        batch = undamaged(data, digest)
        registry = None if batch is None else registry_of(connection, context, batch.header.registry_version[0])
        if batch is None or registry is None:
            continue
        try:
            decoded = decode(batch, registry)
        except RemoteFault:
            continue
        for entries in decoded:
            ids = wanted.get(entries.table.name, set())
            for at, key in enumerate(entries.ids):
                if key in ids:
                    by_key = found.setdefault(entries.table.name, {})
                    by_key.setdefault(key, []).append(Former(batch.head, view(entries, at)))
    return found


def _candidates(connection: Connection, stream: StreamId, *, again: bool) -> list[int]:
    """Local numbers of merged batches of the origin's other lives in this scope that may say the same."""
    lives = execute(
        connection,
        "SELECT no FROM _stream WHERE origin = ? AND scope = ? AND epoch <> ?",
        (stream.origin, stream.scope, stream.epoch),
    ).scalars()
    nos: list[int] = []
    for no in lives.all():
        which = "" if again else " AND again = 1"
        nos += execute(
            connection, f"SELECT no FROM _batch WHERE stream = ? AND state = 'applied'{which} ORDER BY no", (no,)
        ).scalars()
    return sorted(nos)

"""Compares rows with their signed batches for ``verify``, scope by scope, and mends them with ``--repair``.

Role: short steps in turn with the service's other work; counts for people; the file in which what was found is kept.
Reach: node.storage, node.platform. Invariant: a value leaves this node's tables only after it has been written down.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection

from node.local import Node
from node.platform import PRIVATE_FILE, sync_directory
from node.storage.bulk import units_present
from node.storage.context import Context
from node.storage.registries import current_registry
from node.storage.repair import ADDED, CHANGED, LOST, Difference, Place, differences, mend, next_keys, places
from node.storage.replay import Replay, Scratch, Unproven, prepare
from node.storage.report import scopes_held
from sync_engine.names import CATALOG, REGISTRY
from sync_engine.registry import Table

log = structlog.get_logger()

BATCHES_AT_ONCE = 4
KEYS_TOLD = 10

Step = Callable[[Mapping[str, Any]], None]


class KeptFile:
    """What stood in rows before they were put back, a JSON document a line, in a file of its own that only the home's
    owner may read. It is made when there is something to keep."""

    def __init__(self, home: Path) -> None:
        self.path = home / f"repairs-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
        self.rows = 0

    def __call__(self, _place: Place, records: Sequence[Mapping[str, Any]]) -> None:
        fresh = not self.path.exists()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.path, flags, PRIVATE_FILE)
        with os.fdopen(descriptor, "ab") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False, default=str).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            sync_directory(self.path.parent)
        self.rows += len(records)


@dataclass(slots=True)
class Found:
    """What is wrong with one table's rows in one scope, without a value."""

    scope: str
    table: str
    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys((CHANGED, LOST, ADDED), 0))
    fields: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)

    def add(self, wrong: Sequence[Difference]) -> None:
        for each in wrong:
            self.kinds[each.kind] += 1
            self.fields |= set(each.fields)
        self.keys = [*self.keys, *(each.id for each in wrong)][:KEYS_TOLD]

    @property
    def told(self) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "table": self.table,
            "rows": sum(self.kinds.values()),
            **self.kinds,
            "fields": sorted(self.fields),
            "keys": self.keys,
        }


@dataclass(slots=True)
class RowCheck:
    """The comparison of all scopes. ``unproven`` are scopes whose batches are not all here as they were signed."""

    node: Node
    progress: Step
    keep: KeptFile | None = None
    rows: int = 0
    found: list[dict[str, Any]] = field(default_factory=list)
    unproven: list[dict[str, str]] = field(default_factory=list)

    async def run(self) -> None:
        scopes = await self.node.database.read(_scopes, self.node.context)
        scratch = Scratch(self.node.home)
        try:
            await self.node.database.read(_prepare, self.node.context, scratch)
            for at, scope in enumerate(scopes):
                self.progress({"scopes": at, "of": len(scopes)})
                await self._scope(scratch, scope)
                if scratch.is_large:
                    scratch.close()
                    scratch = Scratch(self.node.home)
                    await self.node.database.read(_prepare, self.node.context, scratch)
        finally:
            scratch.close()

    async def _scope(self, scratch: Scratch, scope: str) -> None:
        replay = Replay(self.node.context, scope)
        try:
            while await self.node.database.read(_advance, scratch, replay):
                pass
            for place in await self.node.database.read(_places, self.node.context, scope):
                await self._table(scratch, replay, place)
        except Unproven as reason:
            self.unproven.append({"scope": scope, "reason": str(reason)})

    async def _table(self, scratch: Scratch, replay: Replay, place: Place) -> None:
        found, last = Found(place.scope, place.table.name), ""
        while True:
            ids, wrong = await self.node.database.read(_page, self.node.context, scratch, replay, place, last)
            if not ids:
                break
            last = ids[-1]
            self.rows += len(ids)
            if wrong and self.keep is not None:
                wrong = await self.node.rewrite(_mend, scratch, replay, place, ids, self.keep)
            found.add(wrong)
        if found.keys:
            log.error("rows differ from their batches", scope=place.scope, table=place.table.name, **found.kinds)
            self.found.append(found.told)
            if self.keep is not None and place.scope.endswith(REGISTRY):
                self.node.context.registries.clear()  # they were read from rows that said something else
                self.node.context.unreadable.clear()


def _rank(scope: str) -> tuple[int, str]:
    """Registry and catalogues first: others are judged by what they say."""
    return (0 if scope.endswith(REGISTRY) else 1 if scope.endswith(CATALOG) else 2), scope


def _scopes(connection: Connection, context: Context) -> list[str]:
    """Scopes of which something was merged, and those of rows that merely stand in a table."""
    tables = _tables(connection, context)
    there = {table.scope_of(unit) for table in tables for unit in units_present(connection, table)}
    return sorted({*scopes_held(connection, context), *there}, key=_rank)


def _tables(connection: Connection, context: Context) -> list[Table]:
    return list(current_registry(connection, context).all_tables.values())


def _places(connection: Connection, context: Context, scope: str) -> list[Place]:
    return places(connection, scope, _tables(connection, context))


def _prepare(connection: Connection, context: Context, scratch: Scratch) -> None:
    with scratch.begin() as aside:
        prepare(connection, aside, context)


def _advance(connection: Connection, scratch: Scratch, replay: Replay) -> int:
    with scratch.begin() as aside:
        return replay.advance(connection, aside, BATCHES_AT_ONCE)


def _page(
    connection: Connection, context: Context, scratch: Scratch, replay: Replay, place: Place, last: str
) -> tuple[list[str], list[Difference]]:
    """The next keys, and which of them differ; what has been applied since is merged first."""
    with scratch.begin() as aside:
        replay.advance(connection, aside)
        ids = next_keys(connection, aside, place, last)
        return ids, differences(connection, aside, context, replay, place, ids) if ids else []


def _mend(
    connection: Connection,
    context: Context,
    scratch: Scratch,
    replay: Replay,
    place: Place,
    ids: Sequence[str],
    keep: KeptFile,
) -> list[Difference]:
    with scratch.begin() as aside:
        return mend(connection, context, aside, replay, place, ids, keep)

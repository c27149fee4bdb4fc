"""``dongbo load`` and ``dongbo dump``: many rows at once, from a file and into one.

Role: phase 1 reads and checks without a lock, in a thread of its own; phase 2 is one write transaction.
Reach: node.bulk, node.storage.bulk. Source: docs/decisions/0018. Invariant: whatever ends a load early, the table is
as it was, and the load can simply be run again.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import compress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.util.concurrency import await_

from conflict.policies import Policy
from node import auditing
from node.bulk.cells import codes_of
from node.bulk.headings import BY, ID, UNIT, Headings
from node.bulk.private_file import PrivateFile
from node.bulk.reading import LINE, Ground, Reader
from node.bulk.rejections import Rejections
from node.bulk.source import Source, open_source
from node.bulk.spool import Spool
from node.bulk.writing import TableWriter
from node.commands import Progress
from node.local import Node
from node.messages import say
from node.storage.audit import noted
from node.storage.bulk import Counts, Put, codes_known, pages, units_present, writable_units
from node.storage.context import Context
from node.storage.engine import roomy
from node.storage.named import table_named, unit_named
from node.storage.registries import current_registry
from sync_engine.audit import BEGUN, Act
from sync_engine.errors import BadInput, DiskFull
from sync_engine.fields import normalise
from sync_engine.names import is_within, path_of
from sync_engine.registry import Field, FieldType, Table

TELL_S = 0.2

_turns: dict[int, asyncio.Lock] = {}


async def load(node: Node, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The keys of ``load --json``. Raises Unreadable for a file of which nothing can be taken."""
    began = time.monotonic()
    ground = await node.database.read(ground_of, node.context, str(arguments["table"]))
    headings = Headings(ground.table)
    path = Path(arguments["file"])
    async with _turns.setdefault(id(node), asyncio.Lock()):  # one at a time: memory is bounded for one
        with ExitStack() as stack, _words(path):
            source = await asyncio.to_thread(open_source, path, arguments.get("sheet"), headings.is_known)
            stack.callback(source.close)
            layout = headings.layout(source.header, arguments.get("skip") or ())
            errors = await asyncio.to_thread(_errors_file, arguments.get("errors"), path)
            if errors is not None:
                stack.callback(errors.drop)
            spool = Spool(node.home)
            stack.callback(spool.close)
            rejections = Rejections(headings.label_of, errors)
            reader = Reader(ground, layout, source, spool, rejections, editor(arguments.get("by")))
            await _read(reader, source, progress)
            locked = time.monotonic()
            told = {"table": ground.table.name, "file": path.name}
            put = noted(put_rows, Act.LOAD, lambda put: {**told, "inserted": put.inserted, "updated": put.updated})
            counts = await node.database.write(put, node.context, ground, reader, _beside(reader.chunks()), progress)
            ended = time.monotonic()
            if errors is not None:
                await asyncio.to_thread(errors.commit)
    return {
        "rows": reader.rows,
        "inserted": counts.inserted,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "rejected": rejections.answer(),
        "rejected_rows": rejections.rows,
        "faults": rejections.faults,
        "cleared": counts.cleared,
        "padded": reader.padded,
        "labels": {name: headings.label_of(name) for name in (*layout.names, *_required(ground.table))},
        "seconds": round(ended - began, 3),
        "writing_seconds": round(ended - locked, 3),
    }


def _required(table: Table) -> list[str]:
    return [each.name for each in table.required]


def ground_of(connection: Connection, context: Context, name: str) -> Ground:
    """What the node knows that a load depends on. Raises BadInput for a table that the register does not have."""
    registry, table = current_registry(connection, context), table_named(connection, context, name)
    kinds = {each.kind for each in table.fields if each.type is FieldType.CODE and each.kind}
    found = codes_known(connection, registry, kinds)
    codes = {kind: codes_of(rows) for kind, rows in found.items()}
    return Ground(context.unit, registry, table, writable_units(connection, table, context.unit), codes)


def editor(name: str | None) -> str | None:
    """A person's name as ``edited_by`` takes it. Raises BadInput."""
    value = normalise(Field(BY, FieldType.TEXT, "", Policy.LATEST), (name or "").strip())
    return str(value) if value else None


def _errors_file(name: str | None, loaded: Path) -> PrivateFile | None:
    if name is None:
        return None
    if Path(name).resolve() == loaded.resolve():
        raise BadInput(say("load.errors_over_file"))
    return PrivateFile(Path(name))


async def _read(reader: Reader, source: Source, progress: Progress) -> None:
    """Phase 1, a chunk at a time: an end of the command is noticed between two."""
    told = 0.0
    while await asyncio.to_thread(reader.next_chunk):
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            progress({"reading": reader.rows, "position": source.position, "size": source.size})
    await asyncio.to_thread(reader.keys.close)


def _beside(chunks: Iterator[dict[str, list[Any]]]) -> Iterator[dict[str, list[Any]]]:
    """The same chunks, each unpacked in a thread: the service goes on meanwhile, and an end is noticed."""
    while (chunk := await_(asyncio.to_thread(next, chunks, None))) is not None:
        yield chunk


def put_rows(
    connection: Connection,
    context: Context,
    ground: Ground,
    reader: Reader,
    chunks: Iterable[dict[str, list[Any]]],
    progress: Progress,
) -> Counts:
    """Phase 2, in one transaction. Raises BadInput where the register is not the one that the rows were read for."""
    registry = current_registry(connection, context)
    if registry.version != ground.registry.version:
        raise BadInput(say("load.registry_changed"), hint=say("load.run_again"))
    told = done = 0.0
    names = [*reader.names, *([BY] if reader.by is not None and BY not in reader.names else [])]

    def reject(line: int, field: str, reason: str) -> None:
        reader.rejections.add(line, [(field, reason)])

    with roomy(connection):
        put = Put(connection, registry, ground.table, context.unit, names, reject)
        for values in chunks:
            _without_repeats(values, reader)
            put.chunk(values[UNIT], values[ID], values[LINE], [values[name] for name in names])
            done += len(values[LINE])
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                progress({"writing": int(done), "of": reader.rows - reader.rejections.rows})
        return put.finish()


def _without_repeats(values: dict[str, list[Any]], reader: Reader) -> None:
    """Keep out the rows whose key stood on an earlier line."""
    repeats = reader.keys.repeats(values[UNIT], values[ID], values[LINE])
    if not repeats:
        return
    for at, first in repeats.items():
        reader.rejections.add(values[LINE][at], [(ID, say("load.why.repeated", line=first))])
    good = [at not in repeats for at in range(len(values[LINE]))]
    for name, column in values.items():
        values[name] = list(compress(column, good))


@contextmanager
def _words(path: Path) -> Iterator[None]:
    """A file that cannot be opened is the operator's to put right, not a fault of the service."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull("there is no space left to write the file") from error
        name = error.filename or path
        raise BadInput(say("load.no_file", file=name, reason=error.strerror or type(error).__name__)) from error


async def dump(node: Node, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Write a table's rows into a file; answers with ``rows``. Raises BadInput, DiskFull."""
    path = Path(arguments["file"])
    with _words(path):
        table = await node.database.read(table_named, node.context, str(arguments["table"]))
        told = {"table": table.name, "file": path.name}
        await auditing.record(node, Act.DUMP, told, outcome=BEGUN)  # first: no rows leave without a record
        done = await node.database.read(_dump, node.context, path, arguments, progress)
        await auditing.record(node, Act.DUMP, {**told, "rows": done["rows"]})
        return done


def _dump(
    connection: Connection, context: Context, path: Path, arguments: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    """One consistent view of the table, a page at a time; the file is written beside, in a thread."""
    table = table_named(connection, context, str(arguments["table"]))
    within = arguments.get("unit")
    units = units_present(connection, table)
    if within is not None:
        above = unit_named((each for unit in units for each in path_of(unit)), within)
        units = [unit for unit in units if is_within(unit, above)]
    rows = told = 0.0
    file = PrivateFile(path)
    try:
        writer = TableWriter(file.text, table, labels=bool(arguments.get("labels")))
        for unit in units:
            for page in pages(connection, table, unit):
                await_(asyncio.to_thread(writer.write, unit, page))
                rows += len(page)
                if time.monotonic() - told > TELL_S:
                    told = time.monotonic()
                    progress({"rows": int(rows)})
        await_(asyncio.to_thread(file.commit))
    finally:
        file.drop()
    return {"rows": int(rows), "table": table.name, "file": str(path)}

"""Defects on purpose, switched on in the dying process: the harness must notice each.

Role: name and patch. Reach: node. Invariant: nothing on disk is changed; the judge's processes run sound code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlcipher3.dbapi2

from node import database
from node.local import Node
from node.storage import inbox, sealing
from node.storage.apply import Applied
from node.storage.inbox import Outcome, Taken
from node.storage.proving import Verified
from tests.crash import homes, shim, steps, story
from tests.crash.actor import Tell
from tests.crash.fuses import Fuse

Patch = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """``step`` and ``kind`` are where it must be noticed, if only every n-th place is tried."""

    step: str
    kind: str
    every: int
    patch: Patch


def ack_before_commit() -> None:
    """The session is told that a batch is stored, and it is stored a little later."""
    real, behind = Node.take, set()

    async def take(self: Node, verified: Verified) -> Outcome:
        async def later() -> None:
            await asyncio.sleep(0.01)
            await real(self, verified)

        task = asyncio.create_task(later())
        behind.add(task)
        task.add_done_callback(behind.discard)
        return Outcome(Taken.WAITING, verified.batch.head, Applied())

    Node.take = take


def told_before_commit() -> None:
    """A local program takes its rows for saved before the commit has returned."""

    def capture(scene: steps.Scene) -> None:
        with homes.client(scene.home, homes.LOCAL_AT) as connection:
            scene.ready()
            for done, ops in enumerate(story.LOCAL, 1):
                connection.execute("BEGIN IMMEDIATE")
                scene.tell("done", done)
                for op in ops:
                    homes.perform(connection, op)
                connection.execute("COMMIT")

    _replace_run("capture", capture)


def notes_in_a_second_transaction() -> None:
    """The rows are committed, then their notes."""

    def transaction(connection: Any, ops: Any) -> None:
        connection.execute("BEGIN IMMEDIATE")
        before = connection.execute("SELECT * FROM _pending").fetchall()
        for op in ops:
            homes.perform(connection, op)
        noted = connection.execute("SELECT * FROM _pending").fetchall()
        _put_notes(connection, before)
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        _put_notes(connection, noted)
        connection.execute("COMMIT")

    homes.transaction = transaction


def _put_notes(connection: Any, notes: list[Any]) -> None:
    connection.execute("DELETE FROM _pending")
    connection.executemany("INSERT INTO _pending VALUES (?, ?, ?, ?, ?, ?, ?, ?)", notes)


def _commit_half_way(module: Any) -> None:
    real = module.insert_batch

    def insert_batch(connection: Any, *given: Any) -> int:
        number: int = real(connection, *given)
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return number

    module.insert_batch = insert_batch


def sealed_in_two_transactions() -> None:
    """A batch is stored in one transaction, its notes are taken away in the next."""
    _commit_half_way(sealing)


def taken_in_two_transactions() -> None:
    """A batch is stored in one transaction, its head moves in the next."""
    _commit_half_way(inbox)


TELL: list[Tell] = []


def shown_before_commit() -> None:
    """A batch's number and hash are shown before the batch is durable."""
    real = sealing.insert_batch

    def insert_batch(connection: Any, stream: int, batch: Any, *given: Any) -> int:
        TELL[0]("held", steps.named([batch.head]))
        return real(connection, stream, batch, *given)

    sealing.insert_batch = insert_batch


def _pragma(pragma: str) -> None:
    connect = sqlcipher3.dbapi2.connect

    class Connection(sqlcipher3.dbapi2.Connection):
        def execute(self, sql: str, *parameters: Any) -> Any:
            return super().execute(pragma if sql.startswith("PRAGMA synchronous") else sql, *parameters)

    def careless(*args: Any, **options: Any) -> Any:
        connection = connect(*args, **{"factory": Connection, **options})
        connection.execute(pragma)
        return connection

    sqlcipher3.dbapi2.connect = careless


def synchronous_normal() -> None:
    """The log is not synced with each commit."""
    _pragma("PRAGMA synchronous = NORMAL")


def synchronous_off() -> None:
    """Nothing is ever synced."""
    _pragma("PRAGMA synchronous = OFF")


def failing_sync_is_ignored() -> None:
    """The disk's error never reaches SQLite: the shim notes the failure and says that all is well."""
    shim.SILENT = True


def full_disk_in_raw_words() -> None:
    """An error of the database goes up as it is, with its statement and its values."""

    def fault_of(error: Any, _path: Path) -> Any:
        return error

    database.fault_of = fault_of


def _replace_run(name: str, run: Callable[[steps.Scene], None]) -> None:
    object.__setattr__(steps.STEPS[name], "run", run)


MUTANTS = {
    "ack before commit": Mutant("ack", "statement", 40, ack_before_commit),
    "told before commit": Mutant("capture", "statement", 9, told_before_commit),
    "notes in a second transaction": Mutant("capture", "statement", 3, notes_in_a_second_transaction),
    "sealed in two transactions": Mutant("seal", "statement", 12, sealed_in_two_transactions),
    "taken in two transactions": Mutant("apply", "statement", 20, taken_in_two_transactions),
    "shown before commit": Mutant("seal", "statement", 12, shown_before_commit),
    "synchronous NORMAL": Mutant("seal", "power", 10, synchronous_normal),
    "synchronous OFF": Mutant("capture", "power", 6, synchronous_off),
    "a failing sync is ignored": Mutant("seal", "fsync", 1, failing_sync_is_ignored),
    "a full disk in raw words": Mutant("seal", "full", 1, full_disk_in_raw_words),
}


def armed(fuse: Fuse, name: str) -> Fuse:
    """The fuse, with a mutant switched on in the process that dies of it."""
    if not name:
        return fuse
    real = fuse.install

    def install(place: Path, tell: Tell) -> None:
        TELL[:] = [tell]
        MUTANTS[name].patch()
        real(place, tell)

    fuse.install = install
    return fuse

"""Where bundles are written: the key, the room and the files of one that is on its way.

Role: look for the recipient's key and for room before anything is written; do what is slow beside the node's work.
Reach: node.bundle_file, node.storage.carried. Invariant: a bundle is encrypted to a key that its recipient signed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from conflict.values import UnitPath
from node.bundle_file import BundleWriter, Place, clear_leftovers, write_fault
from node.local import Node
from node.storage import carried
from sync_engine.bundle import BundleHeader
from sync_engine.errors import DiskFull, LocalFault
from sync_engine.frames import is_batch
from sync_engine.statements import EncryptionKey

ROOM_FACTOR = 1.05
"""Of the batches alone; frames, certificates and statements come on top."""

ROOM_BYTES = 1_000_000

T = TypeVar("T")


class NoCarryKeyOf(LocalFault):
    """The neighbour has not told under which key things are encrypted to it."""

    default_hint = (
        "run 'dongbo export' there first, and import that here: it brings the key; so does a session over the line"
    )


class Writer(Protocol):
    """One bundle on its way."""

    @property
    def size(self) -> int: ...

    async def frame(self, data: bytes) -> None: ...

    async def finish(self) -> list[Path]: ...

    def drop(self) -> None: ...


class Desk(Protocol):
    """Where bundles are written. ``work`` runs what takes time, such as reading from a stick."""

    async def begin(self, node: Node, header: BundleHeader, child: UnitPath) -> Writer: ...

    def work(self, function: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class FileDesk:
    """Bundles as files at ``place``. ``to`` is the recipient's key where it cannot be told yet from what is kept here:
    its handovers are still to come."""

    def __init__(self, place: Place, to: EncryptionKey | None = None) -> None:
        self._place, self._to = place, to

    async def begin(self, node: Node, header: BundleHeader, child: UnitPath) -> Writer:
        """Raises NoCarryKeyOf, DiskFull, BadInput or LocalFault."""
        key = self._to or await node.database.read(carried.carry_key, node.context, header.recipient)
        if key is None:
            raise NoCarryKeyOf(f"{header.recipient} has not told under which key things are encrypted to it")
        await self.work(clear_leftovers, self._place.folder, header.epoch)
        _check_room(self._place.folder, await node.database.read(carried.bytes_lacking, header.recipient, child))
        return _FileWriter(await self.work(BundleWriter, self._place, header, key, node.context.speaks_as[1]))

    def work(self, function: Callable[..., T], *args: Any) -> Awaitable[T]:
        return asyncio.to_thread(function, *args)


class _FileWriter:
    """Writes in a thread, so that a slow stick holds nothing up."""

    def __init__(self, writer: BundleWriter) -> None:
        self._writer = writer

    @property
    def size(self) -> int:
        return self._writer.size

    async def frame(self, data: bytes) -> None:
        await asyncio.to_thread(self._writer.frame, data, repeated=not is_batch(data))

    async def finish(self) -> list[Path]:
        return await asyncio.to_thread(self._writer.finish)

    def drop(self) -> None:
        self._writer.drop()


def _check_room(folder: Path, lacking: int) -> None:
    """Before anything is written. Raises DiskFull, or what is wrong with the folder."""
    try:
        needed, free = int(lacking * ROOM_FACTOR) + ROOM_BYTES, shutil.disk_usage(folder).free
    except OSError as error:
        raise write_fault(folder, error) from error
    if free < needed:
        raise DiskFull(
            f"{folder} has room for {free // 1_000_000} MB, and {needed // 1_000_000} MB are needed",
            hint="free some space, or use a larger stick",
        )

"""What a backup holds, and how it is written while the node works.

Role: collect a home's identity, settings and a consistent copy of its database, and seal them into one file.
Reach: node.sealed_file, node.storage.rest, node.secret; the home and the file. Source: docs/decisions/0027.
Invariant: the file appears whole or not at all, it opens with its passphrase alone, and no step of it holds more than
a chunk in memory.

    length (4), manifest (JSON), the database
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from node import config as configs
from node import pem, platform, secret
from node.at_rest import SNAPSHOT
from node.sealed_chunks import CHUNK_BYTES
from node.sealed_file import FileKey, Writer
from node.secret import DATABASE
from node.storage import rest
from sync_engine.errors import BadCertificate, BadInput, DiskFull

FORMAT = 1
LENGTH_BYTES = 4

Tell = Callable[[int, int], None]
"""Gets bytes done and bytes in all; may raise, which ends the backup."""


def make(home: Path, file: Path, key: FileKey, said: Mapping[str, Any], tell: Tell) -> int:
    """Back a home up into ``file``; returns its size. Others go on reading and writing meanwhile.

    ``said`` goes into the manifest. Raises BadInput, DiskFull or OSError, and leaves nothing behind then.
    """
    _check_place(home, file)
    database, vault = home / DATABASE, secret.vault(home)
    size = rest.size_of(database)
    # The copy is made at the speed of the home's disk, whatever the target's, so that the log is not held for long.
    rest.check_room(home, 2 * size if _one_disk(home, file.parent) else size)
    rest.check_room(file.parent, size)
    keys = _key_files(home)
    copy, copy_key = home / SNAPSHOT, None if vault.database_key is None else secrets.token_bytes(32)
    try:
        rest.copy_live(
            database, vault.database_key, copy, copy_key, lambda done, of: tell(done * size // (2 * of), size)
        )
        whole = copy.stat().st_size
        manifest = {
            **said,
            "format": FORMAT,
            "config": configs.path_of(home).read_text(encoding="utf-8"),
            "keys": keys,
            "database_key": None if copy_key is None else copy_key.hex(),
            "database_bytes": whole,
        }
        return _write(file, key, json.dumps(manifest, ensure_ascii=False).encode(), copy, tell)
    finally:
        rest.forget(copy)


def _check_place(home: Path, file: Path) -> None:
    if not file.parent.is_dir():
        raise BadInput(f"there is no folder {file.parent}", hint="make it, or insert the disk that has it")
    if file.resolve().is_relative_to(home.resolve()):
        raise BadInput("a backup must not lie in the home that it is for", hint="name a file on another disk")
    if file.exists() and not file.is_file():
        raise BadInput(f"{file} is not a file", hint="name the file to write")


def _one_disk(first: Path, second: Path) -> bool:
    return first.stat().st_dev == second.stat().st_dev


def _key_files(home: Path) -> dict[str, str]:
    """Keys as they are used, certificates and requests; a key with a passphrase of its own stays under it."""
    found: dict[str, str] = {}
    for path in sorted((home / "keys").iterdir()):
        if path.suffix in (".tmp", ".old"):
            continue
        content = path.read_bytes()
        if path.suffix == ".key" and secret.is_locked(content):
            with contextlib.suppress(BadCertificate):
                key = pem.any_key_from_pem(content, secret.vault(home).key_password)
                content = pem.key_to_pem(key)
        found[path.name] = content.hex()
    return found


def _write(file: Path, key: FileKey, manifest: bytes, copy: Path, tell: Tell) -> int:
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(part, flags, platform.PRIVATE_FILE), "wb") as target, copy.open("rb") as source:
            writer = Writer(target, key)
            writer.write(len(manifest).to_bytes(LENGTH_BYTES, "big") + manifest)
            _pour(source, writer, copy.stat().st_size, tell)
            writer.finish()
            target.flush()
            os.fsync(target.fileno())
            size = target.tell()
        part.replace(file)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(
                f"no space left to write {file.name}", hint="free some space, then run this again"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise BadInput(
                f"{file.parent} cannot be written: {error.strerror}",
                hint="a service may write its home alone: name the folder in its unit file (see docs/at-rest.md)",
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    platform.sync_directory(file.parent)
    return size


def _pour(source: BinaryIO, writer: Writer, size: int, tell: Tell) -> None:
    done = 0
    while chunk := source.read(CHUNK_BYTES):
        writer.write(chunk)
        done += len(chunk)
        tell((size + done) // 2, size)

"""``dongbo restore``: a home out of a backup.

Role: prove the whole file, then put a home in place; mark it, so that its first start takes up a new life.
Reach: node.backup's file, node.keys, node.secret, node.storage.rest; an empty home. Source: docs/decisions/0027.
Invariant: nothing is put in place before everything has been proven, and ``node.toml`` comes last: it is what says
that a node is there. An attempt that was cut off is simply made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from node import config as configs
from node import pem, platform, secret
from node.backup import FORMAT, LENGTH_BYTES, Tell
from node.config import ENCRYPTED, AtRest, Config
from node.keys import KeyStore
from node.sealed_chunks import CHUNK_BYTES
from node.sealed_file import NotSealed, Reader
from node.secret import AT_REST, DATABASE, NoSecret
from node.storage import rest
from node.storage.engine import open_engine
from node.storage.meta import set_meta
from sync_engine.errors import AlreadySetUp

STAGE, KEYS, COPY = "restoring", "keys", "database"
MANIFEST_BYTES_MAX = 4 << 20
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")

RESTORED = "restored"
"""In ``_meta``: when the backup was made that this database came out of, until the node has taken up a new life."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What stands in the home now."""

    config: Config
    made_at_ms: int


def restore(file: Path, home: Path, passphrase: bytes, wish: AtRest | None, tell: Tell) -> Restored:
    """Make a home out of a backup. ``wish`` is how it shall lie there, if not as where the backup was made.

    Raises NotSealed or WrongPassphrase, AlreadySetUp, NoSecret, BadSecret, DiskFull or Damaged; there is no home then.
    """
    _check_empty(home)
    with file.open("rb") as source:
        reader = Reader(source, passphrase)  # before anything is made
        made = not home.exists()
        platform.make_private_dir(home)
        try:
            with platform.HomeLock(home):
                _check_empty(home)
                stage = home / STAGE
                _clear(home)
                platform.make_private_dir(stage)
                try:
                    restored = _fill(reader, home, stage, wish, tell)
                    _put_in_place(stage, home)
                finally:
                    shutil.rmtree(stage)
        except BaseException:
            if made:
                _leave_nothing(home)
            raise
    return restored


def _check_empty(home: Path) -> None:
    """A home with a node, or with something else in it, is nobody's to write over; one of an attempt cut off is."""
    if not home.exists() or ((home / STAGE).exists() and not configs.path_of(home).exists()):
        return
    if configs.path_of(home).exists() or (home / KEYS).exists() or (home / DATABASE).exists():
        raise AlreadySetUp(
            f"{home} holds a node already", hint="a backup is restored into an empty home: choose another --home"
        )


def _clear(home: Path) -> None:
    """What an attempt left that was cut off: ``node.toml`` is not there, so none of it is in use."""
    for folder in (home / STAGE, home / KEYS):
        shutil.rmtree(folder, ignore_errors=True)
    rest.forget(home / DATABASE)
    (home / AT_REST).unlink(missing_ok=True)


def _leave_nothing(home: Path) -> None:
    with contextlib.suppress(OSError):
        (home / "lock").unlink(missing_ok=True)
        home.rmdir()


def _fill(reader: Reader, home: Path, stage: Path, wish: AtRest | None, tell: Tell) -> Restored:
    manifest = _manifest(reader)
    size, copy = int(manifest["database_bytes"]), stage / COPY
    rest.check_room(home, 2 * size)
    _write_database(reader, copy, size, tell)
    copy_key = None if manifest["database_key"] is None else bytes.fromhex(manifest["database_key"])
    rest.prove(copy, copy_key)
    config = _write_config(manifest, home, stage, wish)
    vault = secret.vault(stage, make=True)
    _turn_database(copy, copy_key, stage / DATABASE, vault.database_key)
    _write_keys(manifest["keys"], stage, vault)
    KeyStore.load(stage, config.ca_key_file)  # the identity fits together, and to its passwords
    _mark(stage / DATABASE, vault.database_key, int(manifest["made_at"]))
    return Restored(config, int(manifest["made_at"]))


def _manifest(reader: Reader) -> Mapping[str, Any]:
    length = int.from_bytes(reader.read_exactly(LENGTH_BYTES), "big")
    if length > MANIFEST_BYTES_MAX:
        raise NotSealed("this backup begins with too much")
    try:
        manifest: Mapping[str, Any] = json.loads(reader.read_exactly(length))
        known = manifest["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        raise NotSealed("this backup does not begin as one") from None
    if not known:
        raise NotSealed("a newer dongbo made this backup", hint="install the version that made it, or a newer one")
    return manifest


def _write_database(reader: Reader, target: Path, size: int, tell: Tell) -> None:
    """All that follows the manifest, to the marked end of the file."""
    rest.new_file(target)
    done = 0
    with target.open("r+b") as file:
        while chunk := reader.read(CHUNK_BYTES):
            done += len(chunk)
            if done > size:
                break
            file.write(chunk)
            tell(done, size)
        file.flush()
        os.fsync(file.fileno())
    if done != size:
        raise NotSealed("this backup is not as long as it says")


def _write_config(manifest: Mapping[str, Any], home: Path, stage: Path, wish: AtRest | None) -> Config:
    platform.write_private(configs.path_of(stage), str(manifest["config"]).encode())
    config = configs.load(stage)
    config = replace(config, at_rest=config.at_rest if wish is None else wish)
    configs.save(stage, config)
    if config.at_rest.database == ENCRYPTED:
        try:
            secret.read(secret.source_at_rest(config.at_rest), home)
        except NoSecret as fault:
            fault.hint = (
                "or name another with --encrypt --secret-file FILE (or --secret-env NAME), or none with --plain"
            )
            raise
    return config


def _turn_database(copy: Path, copy_key: bytes | None, target: Path, key: bytes | None) -> None:
    if (copy_key is None) != (key is None):
        rest.convert(copy, copy_key, target, key)
        return
    if copy_key is not None and key is not None:
        rest.rekey(copy, copy_key, key)
    copy.rename(target)


def _write_keys(files: Mapping[str, str], stage: Path, vault: secret.Vault) -> None:
    folder = stage / KEYS
    platform.make_private_dir(folder)
    for name, content in sorted(files.items(), key=lambda each: each[0].endswith(".key")):  # a key needs its salt
        if not NAME.fullmatch(name):
            raise NotSealed("this backup names a file that cannot be")
        data = bytes.fromhex(content)
        if name.endswith(".key") and not secret.is_locked(data):
            data = pem.key_to_pem(pem.any_key_from_pem(data), vault.password_of(name))
        platform.write_private(folder / name, data)


def _mark(database: Path, key: bytes | None, made_at_ms: int) -> None:
    engine = open_engine(database, key)
    try:
        with engine.begin() as connection:
            set_meta(connection, RESTORED, str(made_at_ms))
    finally:
        engine.dispose()


def _put_in_place(stage: Path, home: Path) -> None:
    for name in _names(stage):
        (stage / name).rename(home / name)
        platform.sync_directory(home)


def _names(stage: Path) -> Iterator[str]:
    yield from (name for name in (AT_REST, DATABASE, KEYS) if (stage / name).exists())
    yield configs.path_of(stage).name

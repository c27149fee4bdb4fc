"""Brings what lies in a home into the form that node.toml asks for: plain or encrypted.

Role: turn database and keys, and finish a turning that was cut off.
Reach: node.secret, node.storage.rest, files of the home under its lock. Source: docs/decisions/0026.
Invariant: each file is replaced whole and tells by itself in which form it is, so a crash anywhere leaves a home that
the next start completes; nothing that was plain is left lying, as far as the disk overwrites in place.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from node import config as configs
from node import pem, platform, secret
from node.config import ENCRYPTED, PLAIN, AtRest
from node.keys import CA_KEY, CaKeyAway
from node.secret import CA_KEYS, DATABASE, NoSecret, Vault
from node.storage import rest
from sync_engine.errors import BadCertificate

TURNED, OLD, SNAPSHOT = DATABASE + ".turned", DATABASE + ".old", DATABASE + ".backup"
"""What is made in between: the file in its new form, the one in its old form, a copy that goes into a backup."""


def turn(home: Path, at_rest: AtRest) -> None:
    """Write the wish into node.toml, then follow it. Raises NoSecret, BadSecret, InUse, DiskFull."""
    config = configs.load(home)
    if at_rest.database == ENCRYPTED:
        secret.read(secret.source_at_rest(at_rest), home)
        _refuse_another_secret(home, config.at_rest, at_rest)
    else:  # where the secret is must be known until nothing is encrypted with it
        at_rest = replace(config.at_rest, database=PLAIN)
        if config.ca_key_file is not None and not config.ca_key_file.exists():
            raise CaKeyAway(
                f"the CA key in {config.ca_key_file} may be encrypted with this home's secret, which goes",
                hint="put the disk in that holds it, then run this again",
            )
    rest.check_room(home, rest.size_of(home / DATABASE))
    configs.save(home, replace(config, at_rest=at_rest))
    settle(home)
    if at_rest.database == PLAIN:
        configs.save(home, replace(config, at_rest=AtRest()))


def _refuse_another_secret(home: Path, old: AtRest, new: AtRest) -> None:
    """A home that is encrypted already may be told of another place, not of another secret."""
    if (home / secret.AT_REST).exists() and old != new:
        secret.check(home, new)


def settle(home: Path) -> None:
    """Do what node.toml asks for and has not been done. Nearly always there is nothing to do, and that is cheap."""
    database = home / DATABASE
    if database.exists() and not platform.is_private(database):
        database.chmod(platform.PRIVATE_FILE)  # older versions left that to the home's directory
    at_rest, _ca = secret.settings(home)
    wanted = at_rest.database == ENCRYPTED
    vault = secret.vault(home, make=wanted)
    rest.forget(home / SNAPSHOT)
    _settle_database(home, vault, encrypted=wanted)
    _settle_keys(home, vault if wanted else Vault(home, vault.ca), vault)
    if not wanted:
        (home / secret.AT_REST).unlink(missing_ok=True)


def _settle_database(home: Path, vault: Vault, *, encrypted: bool) -> None:
    database, turned, old = home / DATABASE, home / TURNED, home / OLD
    if database.exists() and database.stat().st_size and secret.lies_encrypted(database) != encrypted:
        from_key, to_key = (None, vault.database_key) if encrypted else (vault.database_key, None)
        rest.check_room(home, rest.size_of(database))
        _keep_names(home)  # what SQLite takes away by itself would not be overwritten
        rest.convert(database, from_key, turned, to_key)
        turned.replace(database)
        platform.sync_directory(home)
    rest.forget(turned)
    for path in (old, *(home / (OLD + name) for name in rest.COMPANIONS)):
        if encrypted:
            rest.wipe(path)
        path.unlink(missing_ok=True)


def _keep_names(home: Path) -> None:
    """Second names for the plain file and its log, by which they are found and wiped when the first ones are gone."""
    for name in ("", *rest.COMPANIONS):
        path, kept = home / (DATABASE + name), home / (OLD + name)
        kept.unlink(missing_ok=True)
        if path.exists():
            with contextlib.suppress(OSError):  # a disk without second names: the old blocks stay until written over
                kept.hardlink_to(path)


def _settle_keys(home: Path, wanted: Vault, opens: Vault) -> None:
    folder, own, brought = home / "keys", secret.has_own_passphrase(home), _ca_key_elsewhere(home)
    for path in sorted(folder.glob("*.key.old")):
        rest.wipe(path)
    for path in (*sorted(folder.glob("*.key")), *brought):
        text = path.read_bytes()
        encrypted, of_ca = secret.is_locked(text), path.name in CA_KEYS or path in brought
        if of_ca and not own and (folder / secret.CA_SALT).exists():
            continue  # node.toml does not name its passphrase any more: it says so when the key is needed
        if not (of_ca and own) and encrypted == (wanted.key_password is not None):
            continue
        key = _opened_with(text, opens.key_password)
        if key is None:
            continue  # it has the CA's own passphrase already, which nobody need bring now
        try:
            password = wanted.password_of(CA_KEY if of_ca else path.name)
        except NoSecret as fault:
            fault.hint = "the key of the CA is to get this passphrase: bring it this once, then start again"
            raise
        _replace_key(path, pem.key_to_pem(key, password))


def _ca_key_elsewhere(home: Path) -> list[Path]:
    """The file of a CA key that is kept out of the home, while somebody has brought it."""
    if not configs.path_of(home).exists():
        return []
    file = configs.load(home).ca_key_file
    return [file] if file is not None and file.exists() else []


def _opened_with(text: bytes, password: bytes | None) -> pem.PrivateKey | None:
    try:
        return pem.any_key_from_pem(text, password)
    except BadCertificate:
        return None


def _replace_key(path: Path, text: bytes) -> None:
    kept = path.with_name(path.name + ".old")
    kept.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        kept.hardlink_to(path)
    platform.write_private(path, text)
    rest.wipe(kept)

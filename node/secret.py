"""Where a home's secret comes from, and the keys that are made of it.

Role: read the secret from a file, a key disk or the environment; derive from it the key of the database and the
password of the key files.
Reach: node.config, node.platform, cryptography. Source: docs/decisions/0026.
Invariant: the secret, and what is made of it, is in memory alone: never in the home, an error, a log or a command line.

    at-rest         in the home: the salt, and a value by which a wrong secret is known at once
    keys/ca.salt    the same for a passphrase of the CA's own
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from node import config as configs
from node import platform
from node.config import ENCRYPTED, AtRest, Ca
from sync_engine.errors import LocalFault

AT_REST, CA_SALT = "at-rest", "ca.salt"
DATABASE = "dongbo.db"
CA_KEYS = frozenset({"ca.key", "next-ca.key"})

MAGIC = b"dongbo at rest 1\n"
PLAIN_HEADER = b"SQLite format 3\0"
SALT_BYTES, CHECK_BYTES = 32, 16
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 12, 4096
"""Shorter ones are guessed; a longer file is not a passphrase."""

SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P = 15, 8, 3
"""32 MiB and a third of a second: a node has little memory, so the third factor makes up for the first."""

GROUP, REST = 0o070, 0o007


class NoSecret(LocalFault):
    """The secret cannot be had now."""


class BadSecret(LocalFault):
    """There is a secret, and it is not the one, or it is not kept as one."""


@dataclass(frozen=True, slots=True)
class Source:
    """One place of a secret. ``what`` names it to people; ``where_said`` is how they may name another place."""

    what: str
    where_said: str
    file: str = ""
    env: str = ""

    @property
    def is_named(self) -> bool:
        return bool(self.file or self.env)


def source_at_rest(at_rest: AtRest) -> Source:
    return Source("the secret of this node", "[at_rest] in node.toml", at_rest.secret_file, at_rest.secret_env)


def source_of_ca(ca: Ca) -> Source:
    return Source("the passphrase of the CA key", "[ca] in node.toml", ca.passphrase_file, ca.passphrase_env)


def read(source: Source, home: Path | None) -> bytes:
    """The secret itself. Raises NoSecret where it is not to be had, BadSecret where it is not kept as one."""
    if source.file and source.env:
        raise BadSecret(f"two places are named for {source.what}", hint="name a file or a variable, not both")
    if source.env:
        found = os.environ.get(source.env)
        if found is None:
            raise NoSecret(
                f"{source.what} should be in the environment as {source.env}, and is not",
                hint=f"set {source.env} where the service starts, or correct {source.where_said}",
            )
        return checked(os.fsencode(found), source, f"the variable {source.env}")
    if not source.file:
        raise NoSecret(
            f"{source.what} is needed, and nothing says where it is",
            hint=f"name a file or an environment variable: {source.where_said}",
        )
    return checked(_read_file(Path(source.file), source, home), source, source.file)


def _read_file(path: Path, source: Source, home: Path | None) -> bytes:
    if home is not None and path.resolve().is_relative_to(home.resolve()):
        raise BadSecret(
            f"{source.what} must not be in the home that it protects: {path}",
            hint="keep it on another disk or a stick; who takes the home must not find it there",
        )
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadSecret(f"{path} is not a file", hint=f"a file must be named: {source.where_said}")
        if _others_may_read(status):
            raise BadSecret(
                f"{path} may be read by others than its owner",
                hint=f"run 'chmod 600 {path}'; on a disk without owners, mount it with umask=077",
            )
        with path.open("rb") as file:
            return file.read(SECRET_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSecret(
            f"insert the key disk: {path}, which holds {source.what}, is not there",
            hint=f"then run this again; if it lies elsewhere now, correct {source.where_said}",
        ) from None
    except OSError as error:
        raise NoSecret(
            f"{path}, which holds {source.what}, cannot be read: {error.strerror}",
            hint="it must be readable by the user that runs the node, and by nobody else",
        ) from None


def _others_may_read(status: os.stat_result) -> bool:
    """What the group of the superuser may read is no worse for it: service managers hand credentials over that way."""
    if sys.platform == "win32":
        return False
    return bool(status.st_mode & REST) or bool(status.st_mode & GROUP and status.st_gid != 0)


def checked(found: bytes, source: Source, where: str) -> bytes:
    secret = found.strip(b"\r\n")
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise BadSecret(
            f"{source.what} in {where} must have between {SECRET_BYTES_MIN} and {SECRET_BYTES_MAX} bytes",
            hint="make one with 'head -c 32 /dev/urandom | base64'",
        )
    return secret


def stretch(secret: bytes, salt: bytes) -> bytes:
    """32 bytes of a secret that may be a person's passphrase: dear to compute, so dear to guess."""
    return Scrypt(salt=salt, length=32, n=1 << SCRYPT_LOG_N, r=SCRYPT_R, p=SCRYPT_P).derive(secret)


def expand(master: bytes, use: str, length: int = 32) -> bytes:
    """A key for one use alone: none of them tells anything of another."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"dongbo " + use.encode()).derive(master)


# --- the salt --------------------------------------------------------------------------------------------------------


def _master(path: Path, secret: bytes, what: str) -> bytes:
    """The stretched secret by a salt file. Raises BadSecret for another secret than the one it was made with."""
    raw = path.read_bytes()
    salt, check = raw[len(MAGIC) : len(MAGIC) + SALT_BYTES], raw[len(MAGIC) + SALT_BYTES :]
    if not raw.startswith(MAGIC) or (len(salt), len(check)) != (SALT_BYTES, CHECK_BYTES):
        raise BadSecret(f"{path} is damaged", hint="put it back as it was, or restore the node from a backup")
    master = stretch(secret, salt)
    if not secrets.compare_digest(expand(master, "check", CHECK_BYTES), check):
        raise BadSecret(
            f"this is not {what}: another one was given when it was set",
            hint="look for the right file or key disk; without it only a backup can bring this node back",
        )
    return master


def is_locked(key: bytes) -> bool:
    """Whether a key in PEM cannot be used without a password."""
    return key.startswith(b"-----BEGIN ENCRYPTED")


def lies_encrypted(database: Path) -> bool:
    """Whether a database file cannot be read without its key. One that is not there yet is in neither form."""
    if not database.exists():
        return False
    with database.open("rb") as file:
        return file.read(len(PLAIN_HEADER)) not in (b"", PLAIN_HEADER)


def _new_salt(path: Path, secret: bytes) -> None:
    salt = secrets.token_bytes(SALT_BYTES)
    platform.make_private_dir(path.parent)
    platform.write_private(path, MAGIC + salt + expand(stretch(secret, salt), "check", CHECK_BYTES))


# --- what a home is opened with --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Vault:
    """The keys of one home, of which ``None`` means that nothing is encrypted with it."""

    home: Path
    ca: Ca = field(default_factory=Ca)
    database_key: bytes | None = field(default=None, repr=False)
    key_password: bytes | None = field(default=None, repr=False)

    def password_of(self, name: str) -> bytes | None:
        """Of one key file. The CA's own is read anew each time, for somebody brings it and takes it away again."""
        if name not in CA_KEYS or not source_of_ca(self.ca).is_named:
            return self.key_password
        source, salt = source_of_ca(self.ca), self.home / "keys" / CA_SALT
        secret = read(source, self.home)
        if not salt.exists():
            _new_salt(salt, secret)
        return expand(_master(salt, secret, source.what), "ca key").hex().encode()


_expected: dict[Path, tuple[AtRest, Ca]] = {}
_opened: dict[tuple[Path, AtRest], tuple[bytes, Vault]] = {}


def expect(home: Path, at_rest: AtRest, ca: Ca | None = None) -> None:
    """What a home that has no node.toml yet will say. Raises NoSecret or BadSecret before anything is made there."""
    if at_rest.database == ENCRYPTED:
        read(source_at_rest(at_rest), home)
    if ca is not None and source_of_ca(ca).is_named:
        read(source_of_ca(ca), home)
    _expected[home.resolve()] = at_rest, ca or Ca()


def settings(home: Path) -> tuple[AtRest, Ca]:
    """What holds for a home. Raises BadConfig."""
    if configs.path_of(home).exists():
        config = configs.load(home)
        return config.at_rest, config.ca
    return _expected.get(home.resolve(), (AtRest(), Ca()))


def check(home: Path, at_rest: AtRest) -> None:
    """Raises BadSecret unless the secret is the one that the home was encrypted with."""
    source = source_at_rest(at_rest)
    _master(home / AT_REST, read(source, home), source.what)


def has_own_passphrase(home: Path) -> bool:
    """Whether the CA key of a home is opened for each signing alone."""
    return source_of_ca(settings(home)[1]).is_named


def vault(home: Path, *, make: bool = False) -> Vault:
    """The keys of a home; the secret is read once in the life of a process, so a key disk may be taken away after.

    ``make``: draw the salt where the home has none and nothing that needs it. Raises NoSecret or BadSecret.
    """
    at_rest, ca = settings(home)
    salt, key = home / AT_REST, (home.resolve(), at_rest)
    if at_rest.database != ENCRYPTED and not salt.exists():
        return Vault(home, ca)
    if not salt.exists():
        if not make or lies_encrypted(home / DATABASE):
            raise NoSecret(
                f"{salt} is not there, and without it the secret opens nothing",
                hint="put it back as it was, or restore the node from a backup",
            )
        _new_salt(salt, read(source_at_rest(at_rest), home))
    known, drawn = _opened.get(key), salt.read_bytes()
    if known is None or known[0] != drawn:
        source = source_at_rest(at_rest)
        master = _master(salt, read(source, home), source.what)
        made = Vault(home, ca, expand(master, "database"), expand(master, "keys").hex().encode())
        _opened[key] = known = drawn, made
    return Vault(home, ca, known[1].database_key, known[1].key_password)

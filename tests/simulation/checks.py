"""The invariants of reliability.md, checked against the truth.

Role: what a violation is; ``check_twice`` shows a node what it has (I5); ``check_disk`` looks for bytes where they may
not be (I13). Every commit is followed in following.py, one node compared with the oracle in registers.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from random import Random

import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection

from node.storage import inbox, proving
from node.storage.context import Context
from sync_engine.batch import parse_batch
from sync_engine.errors import RemoteFault
from tests.simulation.identities import IDENTITIES
from tests.simulation.model import TABLES, holds, readable
from tests.simulation.process import Process

Stream = tuple[str, str, str]
"""(origin, epoch, scope)"""


class Violation(AssertionError):
    """An invariant does not hold; the message begins with its name."""


def require(condition: bool, message: Callable[[], str]) -> None:
    if not condition:
        raise Violation(message())


@lru_cache(maxsize=20_000)
def signed_by(origin: str, epoch: str, header: bytes, signature: bytes) -> bool:
    try:
        IDENTITIES.public(origin, epoch).verify(signature, b"dongbo/batch/1\0" + header, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


# --- I5: again is the same as once ---


def check_twice(node: Process, rng: Random, count: Callable[[str], None]) -> None:
    """Bring a node a batch that it has, as a lost ack does; nothing of what it stores may differ after."""
    stored = node.query("SELECT data FROM _batch ORDER BY no")
    if not stored:
        return
    before = fingerprint(node)
    node.look(_take_again, node.context, rng.choice(stored)[0])
    count("taken again")
    require(fingerprint(node) == before, lambda: f"I5: {node.unit} took a batch again and has changed")


def _take_again(connection: Connection, context: Context, data: bytes) -> None:
    try:
        inbox.take(connection, context, proving.verify(connection, context, data))
    except RemoteFault:
        return  # stored here without the chunks that others may not read, or of a stream that was left
    connection.commit()


def fingerprint(node: Process) -> bytes:
    """All that a node stores of rows, registers, batches, heads and conflicts."""
    digest = sha256()
    for table in (*TABLES, "_row", "_write", "_stream", "_batch", "_conflict", "_pending", "_seen", "_fork"):
        digest.update(repr(sorted(map(repr, node.query(f"SELECT * FROM {table}")))).encode())
    return digest.digest()


# --- I13: no byte where it may not be ---

_MARK = re.compile(rb"~([a-z0-9.-]+)~([a-z]+)~[0-9]+~")


def check_text(text: str) -> None:
    """What is logged, or said of a fault, holds nothing of what people have entered."""
    require(_MARK.search(text.encode()) is None, lambda: f"I13: a value stands in {text!r}")


def check_disk(node: Process) -> None:
    """Search the database files, free pages and log too, and what the stored batches hold once unpacked."""
    found = set(_MARK.findall(node.bytes_on_disk()))
    for (data,) in node.query("SELECT data FROM _batch"):
        batch = parse_batch(data)
        for section in batch.chunks:
            for chunk in section.values():
                found.update(_MARK.findall(zstandard.ZstdDecompressor().decompress(chunk)))
    for raw_unit, raw_field in found:
        unit, field = raw_unit.decode(), raw_field.decode()
        table = next(each for each in TABLES.values() if field in each.fields)
        register = next(each for each in table.registers if field in each.fields)
        scope = unit + "/catalog" if table.catalogue else unit
        allowed = holds(node.unit, scope) and readable(register, node.unit, unit)
        require(allowed, lambda u=unit, f=field: f"I13: {node.unit} has bytes of {f} of a row of {u}")  # type: ignore[misc]

"""Certificate paths of the nodes whose batches are kept here.

Role: store verified paths; give them back, for verification and for those who lack them.
Reach: storage tables, sync_engine.certificates.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from conflict.values import Epoch, UnitPath
from node.storage.engine import execute
from sync_engine.certificates import Certified, verify_node_path
from sync_engine.errors import BadCertificate


def keep_path(connection: Connection, path: Sequence[bytes], tree_id: bytes) -> Certified:
    """Verify and store a node's path. A second key for one epoch of a unit is refused. Raises BadCertificate,
    WrongTree."""
    certified = verify_node_path(path, tree_id)
    known = path_of(connection, certified.unit, certified.epoch or Epoch(""))
    if known is None:
        execute(
            connection,
            "INSERT INTO _certificate (unit, epoch, sha256, path) VALUES (?, ?, ?, ?)",
            (certified.unit, certified.epoch, certified.sha256, msgspec.msgpack.encode(list(path))),
        )
    elif (
        known != tuple(path)
        and verify_node_path(known, tree_id).public_key.public_numbers() != certified.public_key.public_numbers()
    ):
        raise BadCertificate(f"a second key is offered for one epoch of {certified.unit}")
    return certified


def path_of(connection: Connection, unit: UnitPath, epoch: Epoch) -> tuple[bytes, ...] | None:
    """The stored path of one unit's epoch, leaf first, in DER."""
    raw = execute(connection, "SELECT path FROM _certificate WHERE unit = ? AND epoch = ?", (unit, epoch)).scalar()
    return None if raw is None else tuple(msgspec.msgpack.decode(raw, type=list[bytes]))

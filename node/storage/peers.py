"""What this node knows of its parent and children: sessions, clocks, and what they have not signed for yet.

Role: remember for people and for counting; a session never relies on it.
Reach: storage tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from conflict.values import Epoch, UnitPath
from node.storage.engine import execute
from node.storage.meta import drop_meta, get_meta, set_meta
from node.storage.receipts import void
from node.storage.streams import on_link
from sync_engine.names import is_shared

REFUSED = "refused-by "


@dataclass(frozen=True, slots=True)
class Peer:
    """One neighbour; times in milliseconds since 1970, None before the first session."""

    unit: str
    last_ok_ms: int | None
    last_error: str | None
    last_error_ms: int | None
    clock_skew_ms: int | None


def peer_of(connection: Connection, unit: str) -> Peer | None:
    found = execute(
        connection,
        "SELECT unit, last_ok_ms, last_error, last_error_ms, clock_skew_ms FROM _peer WHERE unit = ?",
        (unit,),
    ).one_or_none()
    return None if found is None else Peer(*found)


def _set(connection: Connection, unit: str, assignments: str, values: tuple[object, ...]) -> None:
    execute(connection, "INSERT INTO _peer (unit) VALUES (?) ON CONFLICT DO NOTHING", (unit,))
    execute(connection, f"UPDATE _peer SET {assignments} WHERE unit = ?", (*values, unit))


def note_met(connection: Connection, unit: UnitPath, skew_ms: int, epoch: Epoch) -> None:
    """A peer introduced itself in an epoch of its own; its clock is this far ahead of ours."""
    void(connection, unit, epoch)
    _set(connection, unit, "clock_skew_ms = ?", (skew_ms,))


def note_success(connection: Connection, unit: str, now_ms: int, life: Epoch | None) -> None:
    """A session came to its end, in the present ``life`` of this node; None where it did not take all that the peer has
    of its own: the peer has still to be met."""
    _set(connection, unit, "last_ok_ms = ?, met_in = ?, last_error = NULL, last_error_ms = NULL", (now_ms, life))
    drop_meta(connection, REFUSED + unit)


def is_met(connection: Connection, unit: str, life: Epoch) -> bool:
    """Whether a session with a neighbour has come to its end in the present life."""
    return execute(connection, "SELECT 1 FROM _peer WHERE unit = ? AND met_in = ?", (unit, life)).scalar() is not None


def note_failure(connection: Connection, unit: str, now_ms: int, error: str) -> None:
    _set(connection, unit, "last_error = ?, last_error_ms = ?", (error, now_ms))


def note_refused(connection: Connection, unit: str, epoch: Epoch, code: str) -> None:
    """A neighbour takes nothing more from this node's key; that its line breaks later says nothing else."""
    set_meta(connection, REFUSED + unit, f"{epoch} {code}")


def refused_by(connection: Connection, unit: str, epoch: Epoch) -> str | None:
    """With which error a neighbour refuses the key in use; None while it does not."""
    of, _, code = (get_meta(connection, REFUSED + unit) or "").partition(" ")
    return code if code and of == epoch else None


def behind(connection: Connection, peer: str, child: str) -> int:
    """Batches held here, in scopes that travel on this link, that no receipt of the peer names."""
    where, values = on_link(child)
    rows = execute(
        connection,
        "SELECT scope, held_seq - coalesce(_peer_head.seq, 0) FROM _stream"
        " LEFT JOIN _peer_head ON _peer_head.stream = _stream.no AND _peer_head.unit = ?"
        " WHERE held_seq > coalesce(_peer_head.seq, 0)"
        f" AND {where}",
        (peer, *values),
    )
    return sum(count for scope, count in rows if is_shared(scope, child))


def sealed_by(connection: Connection, unit: str) -> int:
    """How many batches a unit has sealed, as far as they are held here."""
    found = execute(connection, "SELECT coalesce(sum(held_seq), 0) FROM _stream WHERE origin = ?", (unit,))
    return int(found.scalar_one())

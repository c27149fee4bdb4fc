"""Certificate paths of the nodes whose batches are kept here, and which of their keys count.

Role: store verified paths; give them back, for verification and for those who lack them; judge which epochs of a unit
are accepted.
Reach: storage tables, sync_engine.certificates, sync_engine.handover. Why it is judged so: docs/decisions/0032.
Invariant: a key is one unit's, under one epoch. A certificate that is not accepted is kept: its batches wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection

from conflict.values import Epoch, UnitPath
from node.storage.context import Context
from node.storage.engine import execute
from sync_engine.certificates import Certified, tree_id_of, verify_node_path
from sync_engine.errors import BadCertificate, Replaced
from sync_engine.frames import TIME_MS_MAX, Statement
from sync_engine.handover import Known, accepted, is_by_parent, key_hash
from sync_engine.names import parent_of
from sync_engine.statements import HANDOVER, Handover, parse


def keep_path(connection: Connection, path: Sequence[bytes], tree_id: bytes) -> Certified:
    """Verify and store a node's path; a renewed one takes the place of the older. A second key for one epoch of a unit,
    and one key for two units, are refused. Raises BadCertificate, WrongTree."""
    certified = verify_node_path(path, tree_id)
    unit, epoch = certified.unit, epoch_of(certified)
    known = path_of(connection, unit, epoch)
    if known == certified.path:
        return certified
    if known is None:
        _note_key(connection, certified)
        execute(
            connection,
            "INSERT INTO _certificate (unit, epoch, sha256, path) VALUES (?, ?, ?, ?)",
            (unit, epoch, certified.sha256, msgspec.msgpack.encode(list(path))),
        )
        judge(connection, unit)
        return certified
    before = verify_node_path(known, tree_id)
    if key_hash(before.public_key) != key_hash(certified.public_key):
        raise BadCertificate(f"a second key is offered for one epoch of {certified.unit}")
    if certified.not_after > before.not_after:
        execute(
            connection,
            "UPDATE _certificate SET sha256 = ?, path = ? WHERE unit = ? AND epoch = ?",
            (certified.sha256, msgspec.msgpack.encode(list(path)), unit, epoch),
        )
    return certified


def path_of(connection: Connection, unit: UnitPath, epoch: Epoch) -> tuple[bytes, ...] | None:
    """The stored path of one unit's epoch, leaf first, in DER."""
    raw = execute(connection, "SELECT path FROM _certificate WHERE unit = ? AND epoch = ?", (unit, epoch)).scalar()
    return None if raw is None else tuple(msgspec.msgpack.decode(raw, type=list[bytes]))


def epoch_of(certified: Certified) -> Epoch:
    """A node's epoch; an invitation has none."""
    return certified.epoch or Epoch("")


# --- which keys count ------------------------------------------------------------------------------------------------


def is_accepted(connection: Connection, unit: UnitPath, epoch: Epoch) -> bool:
    """Whether batches of an epoch count: its key is the unit's first, or an accepted key or the parent signed for it.
    A certificate that an older version of the software stored is a first one."""
    found = execute(connection, "SELECT accepted FROM _node_key WHERE unit = ? AND epoch = ?", (unit, epoch)).scalar()
    return found is None or bool(found)


def is_known(connection: Connection, unit: UnitPath, epoch: Epoch) -> bool:
    """Whether the key of an epoch is here to be judged."""
    sql = "SELECT 1 FROM _node_key WHERE unit = ? AND epoch = ?"
    return execute(connection, sql, (unit, epoch)).scalar() is not None


def judge(connection: Connection, unit: UnitPath) -> None:
    """Judge a unit's epochs anew: a certificate or a handover has come. Those of its children follow, where it signed
    for them under an epoch that is judged otherwise now."""
    known = [
        Known(Epoch(epoch), bytes(digest))
        for epoch, digest in execute(
            connection, "SELECT epoch, sha256 FROM _node_key WHERE unit = ? ORDER BY no", (unit,)
        )
    ]
    counted = accepted(known, _proven(connection, unit, "epoch IN (SELECT epoch FROM _node_key WHERE unit = ?)", unit))
    changed = False
    for epoch in (each.epoch for each in known):
        update = "UPDATE _node_key SET accepted = ? WHERE unit = ? AND epoch = ? AND accepted != ?"
        changed |= execute(connection, update, (epoch in counted, unit, epoch, epoch in counted)).rowcount > 0
    if changed:
        for child in certified_children(connection, unit):
            judge(connection, child)


def may_be_followed(connection: Connection, unit: UnitPath, epoch: Epoch, by: Epoch) -> bool:
    """Whether the parent may still certify a successor of a key: none has been but this, and no other machine has taken
    the unit's place. That is the parent's own memory: where it is lost, two may go on rather than none."""
    found = execute(connection, "SELECT replaced FROM _node_key WHERE unit = ? AND epoch = ?", (unit, epoch)).scalar()
    own = [each for each in _proven(connection, unit) if not is_by_parent(each) and each.signer_epoch == epoch]
    return not found and all(each.epoch == by for each in own)


def followers_of(connection: Connection, unit: UnitPath, epoch: Epoch) -> set[Epoch]:
    """The epochs that have followed one, as far as statements tell: its key handed over to them, or the parent signed
    for them later than for it (which cannot be told while what it signed for this one has not come). By this a node
    finds that it is not the newest of its unit; it decides nothing else. What led to a key never follows it: the
    clocks that both were signed by differ, and a parent that was restored signs once more for what it is shown."""
    proven = _proven(connection, unit)
    own = [each for each in proven if not is_by_parent(each)]
    newest_first = sorted(filter(is_by_parent, proven), key=lambda each: -each.time_ms)
    signed = {each.epoch: each.time_ms for each in newest_first}  # the first time counts
    line = _line_of(own, epoch)
    since = [signed[each] for each in line & signed.keys()] + [each.time_ms for each in own if each.epoch in line]
    later = {each for each, time_ms in signed.items() if since and time_ms > max(since)}
    return later | {each.epoch for each in own if each.signer_epoch == epoch}


def time_of_next(connection: Connection, unit: UnitPath, now_ms: int) -> int:
    """When a key of a unit hands over to the next one, in milliseconds: past all that is signed for its keys, whatever
    the clock says. Else what its parent has signed by a clock that is ahead would follow the new key for ever."""
    return min(max([now_ms, *(each.time_ms + 1 for each in _proven(connection, unit))]), TIME_MS_MAX)


def _line_of(own: Iterable[Handover], epoch: Epoch) -> set[Epoch]:
    """An epoch and those that led to it, by what their keys handed over to."""
    before, line = {each.epoch: each.signer_epoch for each in own}, {epoch}
    while epoch in before and before[epoch] not in line:
        epoch = before[epoch]
        line.add(epoch)
    return line


def note_replaced(connection: Connection, unit: UnitPath) -> None:
    """Another machine takes a unit's place: no key that is known of it now is followed by another, or may call."""
    execute(connection, "UPDATE _node_key SET replaced = 1 WHERE unit = ?", (unit,))
    execute(connection, "DELETE FROM _former_call WHERE unit = ?", (unit,))  # perhaps it is this one that is let back


def is_replaced(connection: Connection, unit: UnitPath, epoch: Epoch) -> bool:
    """Whether the key is of a machine whose place another has taken."""
    sql = "SELECT 1 FROM _node_key WHERE unit = ? AND epoch = ? AND replaced = 1"
    return execute(connection, sql, (unit, epoch)).scalar() is not None


def check_not_replaced(connection: Connection, unit: UnitPath, epoch: Epoch) -> None:
    """Raises Replaced for a key of a machine whose place another has taken."""
    if is_replaced(connection, unit, epoch):
        raise Replaced(
            f"another machine has taken the place of {unit}: this home is a copy of one that has gone on, or an old"
            " image of it"
        )


def note_former_call(connection: Connection, context: Context, unit: UnitPath, epoch: Epoch) -> None:
    """A machine whose place another has taken called, and was refused."""
    execute(
        connection,
        "INSERT INTO _former_call (unit, epoch, at_ms) VALUES (?, ?, ?)"
        " ON CONFLICT (unit, epoch) DO UPDATE SET at_ms = excluded.at_ms",
        (unit, epoch, context.now_ms()),
    )


def former_calls(connection: Connection) -> list[tuple[UnitPath, Epoch, int]]:
    """The keys of such machines, and when each called last."""
    rows = execute(connection, "SELECT unit, epoch, at_ms FROM _former_call ORDER BY unit, at_ms DESC")
    return [(UnitPath(unit), Epoch(epoch), int(at_ms)) for unit, epoch, at_ms in rows]


def present_of(connection: Connection, unit: UnitPath) -> Epoch | None:
    """The key that a unit uses now, as far as can be told: of those that count and have handed over to none, the one
    that was signed for last. It informs an operator's command and decides nothing about batches."""
    proven = _proven(connection, unit)
    signed = {each.epoch: each.time_ms for each in proven}
    left = {each.signer_epoch for each in proven if not is_by_parent(each)}
    ends = [epoch for epoch in accepted_epochs(connection, unit) if epoch not in left]
    return max(ends, key=lambda epoch: signed.get(epoch, 0), default=None)


def is_named(connection: Connection, unit: UnitPath, epoch: Epoch) -> bool:
    """Whether a handover names this epoch."""
    return any(each.epoch == epoch for each in _proven(connection, unit))


def mark_mine(connection: Connection, certified: Certified) -> None:
    """Note that an epoch is a life of this home."""
    key = (certified.unit, epoch_of(certified))
    execute(connection, "UPDATE _node_key SET mine = 1 WHERE unit = ? AND epoch = ?", key)


def unaccepted(connection: Connection) -> list[tuple[UnitPath, Epoch]]:
    """The epochs that wait for a handover."""
    found = execute(connection, "SELECT unit, epoch FROM _node_key WHERE accepted = 0 ORDER BY unit, no")
    return [(UnitPath(unit), Epoch(epoch)) for unit, epoch in found]


def accepted_epochs(connection: Connection, unit: UnitPath) -> list[Epoch]:
    """The epochs of a unit that count, in the order in which their certificates came."""
    found = execute(connection, "SELECT epoch FROM _node_key WHERE unit = ? AND accepted = 1 ORDER BY no", (unit,))
    return [Epoch(epoch) for epoch in found.scalars()]


def certified_children(connection: Connection, parent: UnitPath) -> list[UnitPath]:
    """The units right below ``parent`` whose certificates are here."""
    units = execute(connection, "SELECT DISTINCT unit FROM _certificate").scalars()
    return [UnitPath(unit) for unit in units if parent_of(unit) == parent]


def _proven(connection: Connection, unit: UnitPath, which: str = "true", *values: str) -> list[Handover]:
    """The handovers of a unit that are kept here (all, or ``which`` of them), without those of a parent's key that does
    not count."""
    rows = execute(
        connection,
        f"SELECT body, signature FROM _statement WHERE unit = ? AND tag = ? AND {which} ORDER BY no",
        (unit, HANDOVER, *values),
    )
    read = (parse(Statement(HANDOVER, bytes(body), bytes(signature))) for body, signature in rows.all())
    return [
        each
        for each in read
        if isinstance(each, Handover)
        and (not is_by_parent(each) or is_accepted(connection, each.signer, each.signer_epoch))
    ]


def _note_key(connection: Connection, certified: Certified) -> None:
    """Raises BadCertificate for a key that another unit or epoch has."""
    note_all_keys(connection, certified.unit)
    digest = key_hash(certified.public_key)
    holder = execute(connection, "SELECT unit FROM _node_key WHERE sha256 = ?", (digest,)).scalar()
    if holder is not None:
        raise BadCertificate(f"a key of {holder} is offered as one of {certified.unit}")
    _insert_key(connection, certified.unit, epoch_of(certified), digest)


def note_all_keys(connection: Connection, unit: UnitPath) -> None:
    """Enter the keys of certificates that an older version of the software stored."""
    rows = execute(
        connection,
        "SELECT _certificate.epoch, path FROM _certificate LEFT JOIN _node_key"
        " ON _node_key.unit = _certificate.unit AND _node_key.epoch = _certificate.epoch"
        " WHERE _certificate.unit = ? AND _node_key.epoch IS NULL ORDER BY _certificate.epoch",
        (unit,),
    ).all()
    for epoch, raw in rows:
        path = msgspec.msgpack.decode(raw, type=list[bytes])
        digest = key_hash(verify_node_path(path, tree_id_of(path[-1])).public_key)
        _insert_key(connection, unit, Epoch(epoch), digest)
    if rows:
        judge(connection, unit)


def _insert_key(connection: Connection, unit: UnitPath, epoch: Epoch, digest: bytes) -> None:
    execute(
        connection,
        "INSERT INTO _node_key (unit, epoch, no, sha256, accepted) VALUES"
        " (?, ?, (SELECT coalesce(max(no), 0) + 1 FROM _node_key), ?, 0) ON CONFLICT DO NOTHING",
        (unit, epoch, digest),
    )

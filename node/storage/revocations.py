"""Keys that a parent has ended, and what still counts of what they signed.

Role: make revocations; tell whether a key is revoked, whether a batch counts, and what waits for good reason.
Reach: storage tables, sync_engine.revocation. Why it is decided so: docs/decisions/0033.
Invariant: nothing is lost: what does not count is kept, and waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.figures import day_and_time
from node.keys import KeyStore
from node.messages import say
from node.storage.audit import note
from node.storage.batches import WAITING, hash_at
from node.storage.certificates import (
    accepted_epochs,
    former_calls,
    is_accepted,
    note_all_keys,
    present_of,
    unaccepted,
)
from node.storage.context import Context
from node.storage.engine import execute
from node.storage.seen import before_named
from node.storage.statements import keep, said
from node.storage.streams import StreamRow, find_stream, held_heads, streams
from sync_engine.audit import Act
from sync_engine.batch import parse_batch
from sync_engine.errors import LocalFault, Revoked
from sync_engine.frames import Statement
from sync_engine.names import parent_of
from sync_engine.revocation import Naming, cut_of, reach
from sync_engine.statements import REVOCATION, Revocation, body_of


class CannotRevoke(LocalFault):
    """The unit's keys are not this node's to end."""


# --- revoking --------------------------------------------------------------------------------------------------------


def revoke(
    connection: Connection, context: Context, keys: KeyStore, unit: UnitPath, reason: str, *, keep_present: bool
) -> list[Epoch]:
    """End the keys of a child (of the root: its own former ones) as of what this node holds of them.

    ``keep_present`` leaves the one in use. Raises CannotRevoke.
    """
    is_me = unit == keys.unit and parent_of(unit) is None
    if parent_of(unit) != keys.unit and not is_me:
        raise CannotRevoke(f"{unit} is not a unit directly below {keys.unit}", hint="only its parent can revoke it")
    note_all_keys(connection, unit)
    found = execute(connection, "SELECT epoch FROM _node_key WHERE unit = ? ORDER BY no", (unit,)).scalars().all()
    epochs = [Epoch(epoch) for epoch in found]
    if is_me:
        epochs = [epoch for epoch in epochs if epoch not in (keys.epoch, context.epoch)]
    elif keep_present:
        present = present_of(connection, unit)
        epochs = [epoch for epoch in epochs if epoch != present]
    ended = [each for epoch in epochs for each in revocations_of(connection, unit, epoch)]
    epochs = [epoch for epoch in epochs if reason_of(connection, unit, epoch) is None]
    if not epochs and ended:
        last = max(ended, key=lambda each: each.time_ms)
        what = "the former keys of " if keep_present else ""
        raise CannotRevoke(
            f"{what}{unit} already revoked on {day_and_time(last.time_ms)}: {last.reason}",
            hint="to let it come back with new keys: dongbo invite LABEL --recover",
        )
    if not epochs:
        raise CannotRevoke(
            f"{unit} has no key here that could be revoked", hint="'dongbo units' shows which units have a node"
        )
    for epoch in epochs:
        heads = [
            head for stream, head in held_heads(connection).items() if (stream.origin, stream.epoch) == (unit, epoch)
        ]
        ends = Revocation(
            tree_id=context.tree_id,
            unit=unit,
            epoch=epoch,
            reason=reason,
            last=tuple(sorted(heads)),
            signer=keys.unit,
            signer_epoch=keys.epoch,
            time_ms=context.now_ms(),
        )
        body = body_of(ends)
        keep(connection, context, Statement(REVOCATION, body, keys.signer()(REVOCATION, body)))
        note(connection, context, Act.REVOKE, {"unit": unit, "epoch": epoch})
    return epochs


# --- what a revocation means -----------------------------------------------------------------------------------------


def revocations_of(connection: Connection, unit: UnitPath, epoch: Epoch) -> list[Revocation]:
    """What ended a key: signed by its parent under an accepted key."""
    known = execute(
        connection,
        "SELECT 1 FROM _statement WHERE unit = ? AND tag = ? AND epoch = ? LIMIT 1",
        (unit, REVOCATION, epoch),
    ).scalar()
    if known is None:
        return []
    return [
        each.said
        for each in said(connection, REVOCATION, unit)
        if isinstance(each.said, Revocation)
        and each.said.epoch == epoch
        and is_accepted(connection, each.said.signer, each.said.signer_epoch)
    ]


def reason_of(connection: Connection, unit: UnitPath, epoch: Epoch) -> str | None:
    """Why a key was ended; None while it is good."""
    found = revocations_of(connection, unit, epoch)
    return found[0].reason if found else None


def check_not_revoked(connection: Connection, unit: UnitPath, epoch: Epoch) -> None:
    """Raises Revoked."""
    found = revocations_of(connection, unit, epoch)
    if found:
        raise Revoked(f"{found[0].signer} has ended this key of {unit}: {found[0].reason}")


def counts(connection: Connection, row: StreamRow, head: Head) -> bool:
    """Whether a batch of a stream may be applied as far as its key goes: the key is accepted, and where it is revoked,
    the batch is within the cut or seen by one that counts."""
    return why_not(connection, row, head) is None


def why_not(connection: Connection, row: StreamRow, head: Head) -> str | None:
    """``second key`` or ``revoked`` where a batch must wait for its key's sake."""
    stream = row.stream
    if not is_accepted(connection, stream.origin, stream.epoch):
        return "second key"
    ended = revocations_of(connection, stream.origin, stream.epoch)
    if not ended:
        return None
    cut = _cut(connection, row, ended, head)
    return None if head.seq <= cut or head.seq <= _reach(connection, stream)[stream] else "revoked"


def _cut(connection: Connection, row: StreamRow, ended: list[Revocation], coming: Head | None = None) -> int:
    """Up to which number the parent accepts what is held here, or is ``coming``: what the batch that it names ends.
    Nothing, while that one has not come: whoever has the key could have signed what stands below it since."""
    cut = cut_of(row.stream, ended)
    while cut is not None and cut != coming and hash_at(connection, row.no, cut.seq) != cut.hash:
        cut = before_named(connection, cut)
    return 0 if cut is None else cut.seq


def _reach(connection: Connection, stream: StreamId) -> dict[StreamId, int]:
    """The last number that counts, of each stream of a revoked key in one scope."""
    cuts, revoked = {}, set()
    for row in streams(connection, stream.scope):
        ended = revocations_of(connection, row.stream.origin, row.stream.epoch)
        if ended:
            cuts[row.stream] = _cut(connection, row, ended)
            revoked.add((row.stream.origin, row.stream.epoch))
    namings = [each for each in _namings(connection, stream.scope) if each.seen.stream in cuts]
    return reach(cuts, [each for each in namings if _is_held(connection, each.seen)], frozenset(revoked))


def _namings(connection: Connection, scope: Scope) -> Iterator[Naming]:
    """What the batches of a scope name: those applied by what their stream has seen, the waiting ones by themselves."""
    every = streams(connection, scope)
    # A key that does not count itself vouches for nothing.
    rows = {row.no: row for row in every if is_accepted(connection, row.stream.origin, row.stream.epoch)}
    named = {row.no: row for row in every}
    for by, of, seq, digest in execute(connection, "SELECT stream, of, seq, hash FROM _seen").all():
        row, seen = rows.get(by), named.get(of)
        if row is not None and seen is not None and row.applied is not None:
            yield Naming(row.stream, row.applied.seq, Head(seen.stream, seq, bytes(digest)))
    waiting = execute(connection, "SELECT no, stream FROM _batch WHERE state = ? ORDER BY no", (WAITING,)).all()
    for no in [no for no, stream in waiting if stream in rows]:
        header = parse_batch(
            bytes(execute(connection, "SELECT data FROM _batch WHERE no = ?", (no,)).scalar_one())
        ).header
        for head in header.seen_delta:
            yield Naming(header.stream, header.seq, head)


def _is_held(connection: Connection, head: Head) -> bool:
    """Whether exactly that batch is here: another branch of a fork is vouched for by nobody who named this one."""
    row = find_stream(connection, head.stream)
    return row is not None and hash_at(connection, row.no, head.seq) == head.hash


# --- telling ---------------------------------------------------------------------------------------------------------


def quarantined(connection: Connection) -> list[dict[str, Any]]:
    """What waits for its key's sake, by stream: how many batches, and why."""
    found = execute(connection, "SELECT stream, count(*) FROM _batch WHERE state = ? GROUP BY stream", (WAITING,)).all()
    counted = {int(no): int(count) for no, count in found}
    told = []
    for row in streams(connection) if counted else ():
        applied = 0 if row.applied is None else row.applied.seq
        if row.no in counted and row.held is not None:
            why = why_not(connection, row, Head(row.stream, applied + 1, b""))
            if why is not None:
                told.append(
                    {"stream": str(row.stream), "unit": row.stream.origin, "batches": counted[row.no], "why": why}
                )
    return told


def key_alarms(connection: Connection, context: Context) -> list[dict[str, Any]]:
    """Second keys that nobody has signed for, and revoked ones, as status tells them; ``mine``: of this very unit;
    ``goes_on``: with another key."""
    second = [
        {
            "unit": unit,
            "epoch": epoch,
            "what": "second key",
            "reason": "",
            "mine": unit == context.unit,
            "goes_on": True,
        }
        for unit, epoch in unaccepted(connection)
    ]
    ended = [
        {
            "unit": each.said.unit,
            "epoch": each.said.epoch,
            "what": "revoked",
            "reason": each.said.reason,
            "mine": each.said.unit == context.unit and each.said.epoch == context.epoch,
            "goes_on": not is_out(connection, each.said.unit),
        }
        for each in said(connection, REVOCATION)
        if isinstance(each.said, Revocation)
    ]
    return second + ended


def former_machines(connection: Connection) -> list[dict[str, Any]]:
    """The units in whose name a machine has called whose place another has taken, and when; not those whose key has
    been ended since."""
    last = {
        unit: at_ms
        for unit, epoch, at_ms in reversed(former_calls(connection))
        if reason_of(connection, unit, epoch) is None
    }
    return [{"unit": unit, "at": last[unit]} for unit in sorted(last)]


def waits_for_an_edit(connection: Connection, context: Context) -> bool:
    """Whether this node has applied what it signed itself under a former key after that had ended: for others it counts
    as soon as this node seals something under the present one, which names it."""
    own = [
        row for row in streams(connection) if row.stream.origin == context.unit and row.stream.epoch != context.epoch
    ]
    return any(row.applied is not None and why_not(connection, row, row.applied) == "revoked" for row in own)


def is_out(connection: Connection, unit: UnitPath) -> bool:
    """Whether every key of a unit that counts is revoked: it may not come back without its parent's invitation."""
    counted = accepted_epochs(connection, unit)
    return bool(counted) and all(reason_of(connection, unit, epoch) is not None for epoch in counted)


def cause(connection: Connection, row: StreamRow, head: Head) -> str | None:
    """What a batch waits for, in words."""
    why = why_not(connection, row, head)
    return None if why is None else say(f"trust.cause.{why}", unit=row.stream.origin)

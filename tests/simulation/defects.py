"""Seeded defects of the product: each breaks one promise while a run lasts, without touching a file.

Role: for each defect, what stands where instead. The list with what each breaks is in mutants.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from conflict import register
from conflict.policies import Policy, shown
from conflict.register import add_write
from conflict.values import Write
from node import local, shipping
from node.storage import apply, batches, digests, engine, inbox, pending, proving, registers, sealing, streams
from node.storage.engine import execute
from node.storage.inbox import Outcome, Taken
from node.storage.registries import registry_for
from sync_engine import merge, seal
from sync_engine.batch import SectionKind, parse_batch
from sync_engine.errors import LinkFault
from sync_engine.exchange import Exchange, Send
from sync_engine.frames import Ack
from tests.simulation import forest, process

Places: TypeAlias = list[tuple[Any, str, Any]]
"""(where, name, what stands there instead), made anew for each run because some remember."""


def ack_before_commit() -> Places:
    real = Exchange._on_batch

    def on_batch(exchange: Exchange, data: bytes) -> Any:
        return [Send(Ack((parse_batch(data).head,))), *real(exchange, data)]

    return [(Exchange, "_on_batch", on_batch)]


def forgotten_loser() -> Places:
    def keep_winner(held: frozenset[Write], new: Write, seen: Any) -> frozenset[Write]:
        kept = add_write(held, new, seen)
        return frozenset({max(kept, key=lambda write: (write.time, write.origin))})

    return [(merge, "add_write", keep_winner)]


def trust_the_checkpoint() -> Places:
    """A sender believes what it remembers of its peer rather than what the peer says."""
    remembered: dict[tuple[str, str], dict[Any, Any]] = {}
    real_heads, real_ack = Exchange._on_heads, Exchange._on_ack

    def on_heads(exchange: Exchange, theirs: Any) -> Any:
        known = {head.stream: head for head in theirs}
        for stream, head in remembered.get((exchange.hello.unit, exchange.peer), {}).items():
            mine = exchange.held.get(stream)
            if (
                stream.origin != exchange.peer
                and mine is not None
                and (stream not in known or known[stream].seq < head.seq <= mine.seq)
            ):
                known[stream] = head
        return real_heads(exchange, tuple(known.values()))

    def on_ack(exchange: Exchange, heads: Any) -> Any:
        mine = remembered.setdefault((exchange.hello.unit, exchange.peer), {})
        mine.update({head.stream: head for head in heads})
        return real_ack(exchange, heads)

    return [(Exchange, "_on_heads", on_heads), (Exchange, "_on_ack", on_ack)]


def arrival_breaks_ties() -> Places:
    def first_come(policy: Policy, writes: Any, *, order: Any = ()) -> Write:
        held = sorted(writes, key=lambda write: write.time)
        best = shown(policy, held, order=order)
        ties = [write for write in held if write.time == best.time]
        return best if policy is Policy.UNION else ties[0] if policy in (Policy.LATEST, Policy.REVIEW) else best

    return [(merge, "shown", first_come)]


def capture_stays_silent() -> Places:
    """A crash while applying leaves capture switched off."""
    count = [0]

    @contextmanager
    def applying(connection: Any) -> Iterator[None]:
        count[0] += 1
        execute(connection, "UPDATE _capture SET applying = 1")
        yield
        execute(connection, f"UPDATE _capture SET applying = {int(count[0] % 10 == 0)}")

    return [(apply, "applying", applying), (pending, "applying", applying)]


def delete_writes_fields() -> Places:
    real = apply.merge_key

    def merge_key(table: Any, scope: str, key: str, states: Any, entries: Any, batch: Any) -> Any:
        merged = real(table, scope, key, states, entries, batch)
        for entry in entries:
            state = states.get(entry.identity)
            if entry.kind is SectionKind.DELETE and state is not None:
                write = Write(None, entry.time, batch.dot.stream.origin, frozenset({batch.dot}))
                for each in table.registers:
                    if not each.is_union and not each.is_group and state.register(each):
                        state.put(each, {"": frozenset({write})})
        return merge.project(table, scope, key, states) if merged else merged

    return [(apply, "merge_key", merge_key)]


def seal_after_apply() -> Places:
    return [(inbox, "seal_remainder", lambda _connection, _context: None)]


def insert_forgets_rivals() -> Places:
    real = merge._merge_insert

    class SawAll:
        def __init__(self, seen: Any) -> None:
            self.covers = seen.covers

        def saw(self, _write: Write) -> bool:
            return True

    def merge_insert(table: Any, state: Any, entry: Any, batch: Any, seen: Any) -> Any:
        return real(table, state, entry, batch, SawAll(seen))  # type: ignore[arg-type]

    return [(merge, "_merge_insert", merge_insert)]


def withhold_nothing() -> Places:
    def whole(_connection: Any, _context: Any, _peer: str, batch: Any) -> bytes:
        return batch.data

    return [
        (where, name, whole) for where, name in ((shipping, "for_peer"), (shipping, "sendable"), (proving, "for_peer"))
    ]


def union_as_a_whole() -> Places:
    real = merge.view

    def view(entries: Any, at: int) -> Any:
        found = real(entries, at)
        values = dict(found.values)
        for each in entries.table.registers:
            if each.is_union and each.name in values:
                values[each.name] = (values[each.name][0], [])
        return replace(found, values=values)

    return [(apply, "view", view)]


def head_without_a_batch() -> Places:
    """Heads say that a batch is applied, and its rows are not there."""
    return [(inbox, "apply_batch", lambda *_args: apply.Applied())]


def seen_says_all() -> Places:
    """``seen`` names what is held rather than what is merged."""

    def held_heads(connection: Any, scope: str) -> Any:
        return [row.held for row in streams.streams(connection, scope) if row.held is not None]

    return [(sealing, "applied_heads", held_heads)]


def receiver_rejects_the_future() -> Places:
    """ "Reject what my clock says is in the future."""
    real = inbox.is_ready

    def is_ready(connection: Any, context: Any, row: Any, batch: Any) -> bool:
        late = context.now_ms() + 365 * 86_400_000 < forest.BEGAN_MS
        return not late and real(connection, context, row, batch)

    return [(inbox, "is_ready", is_ready)]


def any_two_edits_are_one() -> Places:
    return [(register, "same_edit", lambda _one, _other: True)]


def gaps_are_jumped() -> Places:
    real = inbox.take

    def take(connection: Any, context: Any, verified: Any) -> Outcome:
        head, row = verified.batch.head, streams.stream_row(connection, verified.batch.head.stream)
        if head.seq > (row.held.seq if row.held else 0) + 1 and row.state == streams.OPEN:
            batches.insert_batch(connection, row.no, verified.batch, batches.WAITING, context.now_ms())
            streams.advance_held(connection, row.no, head)
            return Outcome(Taken.WAITING, head, apply.Applied())
        return real(connection, context, verified)

    return [(local, "take", take)]


def anybody_signs() -> Places:
    return [(proving, "check_origin", lambda _batch, _certified: None)]


def heads_go_back() -> Places:
    """A batch that came again takes its stream's head along."""
    real = inbox.take

    def take(connection: Any, context: Any, verified: Any) -> Outcome:
        outcome = real(connection, context, verified)
        if outcome.taken is Taken.KNOWN:
            row = streams.stream_row(connection, verified.batch.head.stream)
            streams.advance_held(connection, row.no, verified.batch.head)
        return outcome

    return [(local, "take", take)]


def forks_are_not_frozen() -> Places:
    return [
        (inbox, "leave", lambda _connection, _no, _state, _reason: None),
    ]


def proofs_stay_here() -> Places:
    return [(shipping, "forks", lambda _connection, _child: [])]


def clocks_are_absorbed() -> Places:
    """The node's clock is moved by the latest time it has met."""
    latest = [0]
    real = merge.add_write

    def meets(held: Any, new: Write, seen: Any) -> Any:
        latest[0] = max(latest[0], new.time)
        return real(held, new, seen)

    def moved(drafting: Any) -> Any:
        def draft(*given: Any) -> Any:
            drafts = drafting(*given)
            if len(drafts) == 1:  # several would come to have one time
                drafts[0].time = max(drafts[0].time, latest[0])
            return drafts

        return draft

    return [
        (merge, "add_write", meets),
        (seal.Folder, "_edits", moved(seal.Folder._edits)),
        (seal.Folder, "_insert", moved(seal.Folder._insert)),
    ]


def credit_is_ignored() -> Places:
    return [(Exchange, "may_send", lambda _exchange, _size: True)]


def one_stream_ends_all() -> Places:
    """A batch that is not taken ends the session, whatever else waits to go over it."""

    def on_refused(_exchange: Any, head: Any, reason: str, _size: int) -> Any:
        raise LinkFault(f"{head.stream}: {reason}")

    return [(Exchange, "on_refused", on_refused)]


def commits_are_not_synced() -> Places:
    real = engine._connect

    def connect(path: str) -> Any:
        connection = real(path)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    return [(engine, "_connect", connect)]


def nothing_is_forwarded() -> Places:
    real = shipping.sendable

    def own(connection: Any, context: Any, peer: str, batch: Any) -> Any:
        return real(connection, context, peer, batch) if batch.head.stream.origin == context.unit else None

    return [(shipping, "sendable", own)]


def at_start(*statements: str) -> Places:
    """The database is opened with something else done to it."""
    real = process.open_database

    def open_database(connection: Any, context: Any) -> None:
        real(connection, context)
        for sql in statements:
            execute(connection, sql)

    return [(process, "open_database", open_database)]


def rows_may_be_moved() -> Places:
    return at_start(*(f"DROP TRIGGER IF EXISTS _capture_{table}_key" for table in ("person", "thing", "word")))


def tables_have_foreign_keys() -> Places:
    return at_start(
        "CREATE TRIGGER IF NOT EXISTS parent_row BEFORE INSERT ON thing WHEN NEW.about IS NOT NULL"
        " AND NEW.about NOT IN (SELECT id FROM word) BEGIN SELECT RAISE(ABORT, 'no such word'); END"
    )


def digests_tell_of_arrival() -> Places:
    real = digests._bucket_hashes

    def bucket_hashes(connection: Any, *given: Any) -> Any:
        last = execute(connection, "SELECT coalesce(max(no), 0) FROM _batch").scalar_one()
        return {name: hashes + bytes([last % 256]) for name, hashes in real(connection, *given).items()}

    return [(digests, "_bucket_hashes", bucket_hashes)]


def conflicts_have_own_numbers() -> Places:
    count = [0]

    def number(*_what: Any) -> int:
        count[0] += 1
        return count[0]

    return [(merge, "conflict_number", number)]


def heads_before_rows() -> Places:
    """A head is committed, then the rows it stands for."""
    real = inbox.apply_batch

    def apply_batch(connection: Any, context: Any, incoming: Any, sections: Any) -> Any:
        batches.mark_applied(connection, incoming.no, context.now_ms())
        streams.advance_applied(connection, streams.stream_row(connection, incoming.head.stream).no, incoming.head)
        execute(connection, "COMMIT")
        execute(connection, "BEGIN IMMEDIATE")
        return real(connection, context, incoming, sections)

    return [(inbox, "apply_batch", apply_batch)]


def batches_are_taken_again() -> Places:
    return [(inbox, "is_stored", lambda _connection, _digest: False)]


def quiet_blends() -> Places:
    """A field that was changed back keeps what the table shows, whoever that belongs to."""

    def kept(self: Any, merged: Any, _before: Any) -> set[str]:
        return {each.name for register in self.quiet if merged.shown for each in register.fields}

    return [(registers.KeySaver, "_kept", kept)]


def registry_not_waited_for() -> Places:
    """A batch counts as ready as soon as its registry version can be read."""

    def may_apply(connection: Any, context: Any, batch: Any) -> bool:
        return registry_for(connection, context, batch) is not None

    return [(inbox, "may_apply", may_apply), (inbox, "number_in_force", lambda _connection: 1 << 62)]

"""Seeded defects: each breaks one promise of the product while a run lasts, without touching a file.

Role: the list, and how to run a seed with one of them. A mutant that no seed catches is a hole in the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from conflict import register
from conflict.policies import Policy, shown
from conflict.register import add_write
from conflict.values import Write
from node import session
from node.storage import apply, inbox, pending, sealing, streams
from node.storage.engine import execute
from sync_engine import merge, seal
from sync_engine.batch import SectionKind, parse_batch
from sync_engine.exchange import Exchange, Send
from sync_engine.frames import Ack
from tests.simulation import forest
from tests.simulation.identities import remember_proofs
from tests.simulation.run import Outcome, Run


@dataclass(frozen=True)
class Mutant:
    """``breaks`` names an invariant. ``places`` are (where, name, what stands there instead), made anew for each run
    because some remember. ``kind`` of the seeds that it shows in (see swarm)."""

    breaks: str
    places: Callable[[], list[tuple[Any, str, Any]]]
    kind: str | None = None


def _ack_before_commit() -> list[tuple[Any, str, Any]]:
    real = Exchange._on_batch

    def on_batch(exchange: Exchange, data: bytes) -> Any:
        return [Send(Ack((parse_batch(data).head,))), *real(exchange, data)]

    return [(Exchange, "_on_batch", on_batch)]


def _forgotten_loser() -> list[tuple[Any, str, Any]]:
    def keep_winner(held: frozenset[Write], new: Write, seen: Any) -> frozenset[Write]:
        kept = add_write(held, new, seen)
        return frozenset({max(kept, key=lambda write: (write.time, write.origin))})

    return [(merge, "add_write", keep_winner)]


def _trust_the_checkpoint() -> list[tuple[Any, str, Any]]:
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


def _arrival_breaks_ties() -> list[tuple[Any, str, Any]]:
    def first_come(policy: Policy, writes: Any, *, order: Any = ()) -> Write:
        held = sorted(writes, key=lambda write: write.time)
        best = shown(policy, held, order=order)
        ties = [write for write in held if write.time == best.time]
        return best if policy is Policy.UNION else ties[0] if policy in (Policy.LATEST, Policy.REVIEW) else best

    return [(merge, "shown", first_come)]


def _capture_stays_silent() -> list[tuple[Any, str, Any]]:
    """A crash while applying leaves capture switched off."""
    count = [0]

    @contextmanager
    def applying(connection: Any) -> Iterator[None]:
        count[0] += 1
        execute(connection, "UPDATE _capture SET applying = 1")
        yield
        execute(connection, f"UPDATE _capture SET applying = {int(count[0] % 10 == 0)}")

    return [(apply, "applying", applying), (pending, "applying", applying)]


def _delete_writes_fields() -> list[tuple[Any, str, Any]]:
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


def _seal_after_apply() -> list[tuple[Any, str, Any]]:
    return [(inbox, "seal_remainder", lambda _connection, _context: None)]


def _insert_forgets_rivals() -> list[tuple[Any, str, Any]]:
    real = merge._merge_insert

    class SawAll:
        def saw(self, _write: Write) -> bool:
            return True

    def merge_insert(table: Any, state: Any, entry: Any, batch: Any, _seen: Any) -> Any:
        return real(table, state, entry, batch, SawAll())  # type: ignore[arg-type]

    return [(merge, "_merge_insert", merge_insert)]


def _withhold_nothing() -> list[tuple[Any, str, Any]]:
    return [(session, "for_peer", lambda _connection, _context, _peer, batch: batch.data)]


def _not_fenced() -> list[tuple[Any, str, Any]]:
    """A restored node goes on as if nothing had happened."""
    return [
        (Exchange, "_refuse_to_repeat_history", lambda _exchange, _theirs: None),
        (inbox, "fence", lambda _connection, _reason: None),
        (session, "fence", lambda _connection, _reason: None),
        (session, "_freeze", lambda _connection, _unit, _theirs: None),
    ]


def _union_as_a_whole() -> list[tuple[Any, str, Any]]:
    real = merge.view

    def view(entries: Any, at: int) -> Any:
        found = real(entries, at)
        values = dict(found.values)
        for each in entries.table.registers:
            if each.is_union and each.name in values:
                values[each.name] = (values[each.name][0], [])
        return replace(found, values=values)

    return [(apply, "view", view)]


def _head_without_a_batch() -> list[tuple[Any, str, Any]]:
    """Heads say that a batch is applied, and its rows are not there."""
    return [(inbox, "apply_batch", lambda *_args: apply.Applied())]


def _seen_says_all() -> list[tuple[Any, str, Any]]:
    """``seen`` names what is held rather than what is merged."""

    def held_heads(connection: Any, scope: str) -> Any:
        return [row.held for row in streams.streams(connection, scope) if row.held is not None]

    return [(sealing, "applied_heads", held_heads)]


def _receiver_rejects_the_future() -> list[tuple[Any, str, Any]]:
    """ "Reject what my clock says is in the future."""
    real = inbox.is_ready

    def is_ready(connection: Any, context: Any, row: Any, batch: Any) -> bool:
        late = context.now_ms() + 365 * 86_400_000 < forest.BEGAN_MS
        return not late and real(connection, context, row, batch)

    return [(inbox, "is_ready", is_ready)]


def _any_two_edits_are_one() -> list[tuple[Any, str, Any]]:
    return [(register, "same_edit", lambda _one, _other: True)]


MUTANTS: dict[str, Mutant] = {
    "ack before commit": Mutant("I17", _ack_before_commit),
    "forgotten loser": Mutant("I1", _forgotten_loser),
    "apply out of causal order": Mutant(
        "I7", lambda: [(inbox, "missing_causes", lambda _connection, _batch: [])], "crowded"
    ),
    "trust the sender's checkpoint": Mutant("I16", _trust_the_checkpoint, "restored"),
    "tie broken by arrival": Mutant("I6", _arrival_breaks_ties, "crowded"),
    "capture suppressed after a crash": Mutant("I2", _capture_stays_silent),
    "delete writes fields": Mutant("I1", _delete_writes_fields),
    "seal after apply": Mutant("I7", _seal_after_apply),
    "fast path looks at nothing": Mutant(
        "I1", lambda: [(apply._TableApply, "_touched_unseen", lambda _self, _keys: set())], "crowded"
    ),
    "contested rows take the fast path": Mutant(
        "I1", lambda: [(apply._TableApply, "_contested", lambda _self, _keys: set())]
    ),
    "an insert forgets its rivals": Mutant("I1", _insert_forgets_rivals),
    "nothing is withheld": Mutant("I13", _withhold_nothing),
    "a restored node is not fenced": Mutant("I11", _not_fenced, "restored"),
    "a union is never taken from": Mutant("I1", _union_as_a_whole),
    "a head moves without its rows": Mutant("I1", _head_without_a_batch),
    "seen says what is held": Mutant("I7", _seen_says_all, "crowded"),
    "a late clock refuses": Mutant("I16", _receiver_rejects_the_future),
    "a write is no later than what it replaces": Mutant("I12", lambda: [(seal, "_later", lambda time: time)]),
    "any two edits are one": Mutant("I1", _any_two_edits_are_one),
    "deleted rows are shown": Mutant("I18", lambda: [(merge, "is_alive", lambda _table, _state: True)]),
}


def run_seed(seed: int, *, long: bool = False, kind: str | None = None, mutant: str | None = None) -> Outcome:
    """Run one seed, with one defect if it is named: then of the kind that it shows in, unless told otherwise."""
    remember_proofs()
    defect = MUTANTS[mutant] if mutant else None
    run = Run(seed, long=long, kind=kind or (defect.kind if defect else None))
    run.prepare()  # the tree is made by sound code
    with ExitStack() as stack:
        for where, name, instead in defect.places() if defect else []:
            stack.enter_context(mock.patch.object(where, name, instead))
        return run.go()


def caught(mutant: str, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first of these seeds that notices the defect, and what it says."""
    for seed in seeds:
        failure = run_seed(seed, mutant=mutant).failure
        if failure is not None:
            return seed, failure
    return None

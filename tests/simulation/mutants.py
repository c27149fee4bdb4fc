"""The mutants: defects seeded into the product, each with the invariant it breaks.

Role: the list, and how to run a seed with one of them. A mutant that no seed catches is a hole in the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from unittest import mock

from node.storage import apply, inbox, outbox, publishing
from sync_engine import merge, seal
from tests.simulation import defects, maladies, misdeeds
from tests.simulation.defects import Places
from tests.simulation.identities import remember_proofs
from tests.simulation.run import Outcome, Run


@dataclass(frozen=True)
class Mutant:
    """``breaks`` names an invariant. ``kind`` of the seeds that it shows in (see swarm)."""

    breaks: str
    places: Callable[[], Places]
    kind: str | None = None


MUTANTS: dict[str, Mutant] = {
    "ack before commit": Mutant("I17", defects.ack_before_commit),
    "forgotten loser": Mutant("I1", defects.forgotten_loser),
    "apply out of causal order": Mutant(
        "I7", lambda: [(inbox, "missing_causes", lambda _connection, _batch: [])], "crowded"
    ),
    "trust the sender's checkpoint": Mutant("I16", defects.trust_the_checkpoint, "restored"),
    "tie broken by arrival": Mutant("I6", defects.arrival_breaks_ties, "crowded"),
    "capture suppressed after a crash": Mutant("I2", defects.capture_stays_silent),
    "delete writes fields": Mutant("I1", defects.delete_writes_fields),
    "seal after apply": Mutant("I7", defects.seal_after_apply),
    "fast path looks at nothing": Mutant(
        "I1", lambda: [(apply._TableApply, "_touched_unseen", lambda _self, _keys: set())], "crowded"
    ),
    "contested rows take the fast path": Mutant(
        "I1", lambda: [(apply._TableApply, "_contested", lambda _self, _keys: set())]
    ),
    "an insert forgets its rivals": Mutant("I1", defects.insert_forgets_rivals),
    "nothing is withheld": Mutant("I13", defects.withhold_nothing),
    "what the brake holds is shipped": Mutant(
        "brake", lambda: [(outbox, "shippable", lambda _connection, heads: dict(heads))], "braked"
    ),
    "what is undone is shown as another's": Mutant("I2", defects.quiet_blends, "braked"),
    "a registry changes under pending edits": Mutant(
        "I1", lambda: [(publishing, "seal_remainder", lambda _connection, _context: None)], "changed"
    ),
    "a batch is applied before its registry": Mutant("I16", defects.registry_not_waited_for, "changed"),
    "a union is never taken from": Mutant("I1", defects.union_as_a_whole),
    "a head moves without its rows": Mutant("I1", defects.head_without_a_batch),
    "seen says what is held": Mutant("I7", defects.seen_says_all, "crowded"),
    "a late clock refuses": Mutant("I16", defects.receiver_rejects_the_future),
    "a write is no later than what it replaces": Mutant("I12", lambda: [(seal, "_later", lambda time: time)]),
    "any two edits are one": Mutant("I1", defects.any_two_edits_are_one),
    "gaps are jumped": Mutant("I3", defects.gaps_are_jumped),
    "anybody may sign": Mutant("I4", defects.anybody_signs),
    "a batch is taken again": Mutant("I5", defects.batches_are_taken_again),
    "digests tell of arrival": Mutant("I6", defects.digests_tell_of_arrival),
    "conflicts have numbers of their own": Mutant("I6", defects.conflicts_have_own_numbers),
    "a row may be moved": Mutant("I8", defects.rows_may_be_moved),
    "a head goes back": Mutant("I9", defects.heads_go_back),
    "a fork is not frozen": Mutant("I10", defects.forks_are_not_frozen, "forked"),
    "proofs of forks do not travel": Mutant("I10", defects.proofs_stay_here, "forked"),
    "clocks are absorbed": Mutant("I12", defects.clocks_are_absorbed),
    "credit is ignored": Mutant("I14", defects.credit_is_ignored),
    "one stream ends the session of all": Mutant("I15", defects.one_stream_ends_all, "hostile"),
    "nothing is forwarded": Mutant("I16", defects.nothing_is_forwarded),
    "tables have foreign keys": Mutant("I16", defects.tables_have_foreign_keys),
    "a commit is not synced": Mutant("I17", defects.commits_are_not_synced),
    "heads are committed before rows": Mutant("I17", defects.heads_before_rows),
    "a held write drives the good one out": Mutant("I1", misdeeds.held_writes_drive_out, "held"),
    "a code that comes releases nothing": Mutant("I6", misdeeds.codes_release_nothing, "held"),
    "a release forgets what was seen": Mutant("I7", misdeeds.released_beside_what_it_had_seen, "held"),
    "unknown codes are shown": Mutant("I6", misdeeds.unknown_codes_are_shown, "held"),
    "whoever enters a row again may write all of it": Mutant("I6", misdeeds.whoever_enters_again_may_write_all),
    "what is shown is not confirmed": Mutant("I1", misdeeds.what_is_shown_is_not_confirmed, "decided"),
    "who was renamed waits still": Mutant("I1", misdeeds.who_waited_stays, "decided"),
    "twins are not listed": Mutant("I1", misdeeds.nobody_waits_for_an_id),
    "reasons go everywhere": Mutant("I13", misdeeds.reasons_go_everywhere, "decided"),
    "what is overwritten is not told": Mutant("I1", misdeeds.overwritten_in_silence),
    "what is driven out is not told": Mutant("I1", misdeeds.driven_out_in_silence, "held"),
    "a forgotten branch is dropped": Mutant("I1", maladies.own_branches_are_dropped, "restored"),
    "an edit sealed twice is two": Mutant("I1", maladies.twins_are_two, "cloned"),
    "a former name is a stranger's": Mutant("I1", maladies.former_names_are_strangers, "cloned"),
    "a repeat stands for nothing": Mutant("I1", maladies.a_repeat_stands_for_nothing, "cloned"),
    "half of a batch is enough": Mutant("I1", maladies.half_is_enough, "cloned"),
    "what is lost is not said": Mutant("I1", maladies.what_is_lost_is_not_said, "cloned"),
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

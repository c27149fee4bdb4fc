"""Hostile bytes: mutants of real frames and batches are refused with a reason, or are lawful; our own faults are seen.

Three thousand of them here; ``python -m tests.hostile`` makes a hundred thousand.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zstandard
from sqlalchemy import Connection

from conflict import register
from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node.storage import inbox, proving
from node.storage.context import Context
from node.storage.engine import execute
from sync_engine import batch as batches
from sync_engine import chunks, merge
from sync_engine.certificates import check_signature
from sync_engine.errors import Malformed
from sync_engine.exchange import Effect, Exchange, PeerHolds, Send
from sync_engine.frames import TIME_MS_MAX, Ack, HeadsFrame, Hello, Refusal, decode, encode
from tests.hostile import judge, run
from tests.hostile.corpus import ABOVE, CHILD, ROOT, Corpus
from tests.hostile.judge import Bench, Verdict
from tests.hostile.talk import Talk
from tests.hostile.unsigned import Mutant

SEED, COUNT = 20, 3_000


@pytest.fixture(name="bench", scope="module")
def bench_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(Corpus(tmp_path_factory.mktemp("hostile")))
    yield bench
    bench.close()


def test_no_mutant_gets_through_and_none_raises_what_is_not_ours(bench: Bench) -> None:
    table = run.Table()
    for result in run.results(bench, SEED, range(COUNT)):
        table.add(result)
    assert not table.wrong, f"replay: python -m tests.hostile --seed {SEED} --only {table.wrong[0].number}"
    outcomes = {name for each in table.counts.values() for name in each}
    wanted = {"BadSignature", "Malformed", "LimitExceeded", "OutOfScope", "WrongTree", "BadCertificate", "RuleBroken"}
    assert outcomes >= wanted | {"taken: applied", "taken: waiting", "taken: frozen", "taken: gap", "heard to the end"}


def test_a_batch_and_a_frame_cut_off_anywhere_are_refused(bench: Bench) -> None:
    batch = min(bench.corpus.fresh[ABOVE], key=lambda each: len(each.data)).data
    shown = [("batch", batch), *(("frame", data) for name, data in bench.corpus.frames.items() if name != "batch")]
    for way, data in shown:
        for size in range(1, len(data)):
            verdict = bench.judge(Mutant("cut", way, ABOVE, data[:size]), Random(1), thorough=False)
            assert verdict.outcome in {"Malformed", "LimitExceeded"}, (way, size, verdict)


def test_what_is_not_changed_is_taken(bench: Bench) -> None:
    """Else all that is refused here would be refused for nothing."""
    for unit in (ABOVE, ROOT):
        first = bench.corpus.fresh[unit][0]
        verdict = bench.judge(Mutant("none", "batch", unit, first.data), Random(1), thorough=False)
        assert verdict == Verdict("its origin's own: applied")
        forged = bench.judge(Mutant("none", "forged", ABOVE, first.data), Random(1), thorough=True)
        assert unit == ROOT or forged == Verdict("taken: applied")


def test_the_largest_bombs_cost_no_more_than_the_limits_allow() -> None:
    """In a process of its own, which may not grow further."""
    command = [sys.executable, "-m", "tests.hostile", "--count", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bomb: the fullest batch                            1  taken: applied 1" in done.stdout


# --- regressions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2**62, 2**63, 2**64 - 1])
def test_a_registry_version_beyond_all_is_malformed(bench: Bench, number: int) -> None:
    """Was: an OverflowError of the database, each time the batch came."""
    header = replace(bench.corpus.fresh[ABOVE][0].header, registry_version=(number, bytes(32)))
    with pytest.raises(Malformed):
        batches.parse_header(batches.encode_header(header))


@pytest.mark.parametrize("time", [-(2**63), -1, 2**62, 2**63 - 1])
def test_a_clock_beyond_all_is_cut_to_size(bench: Bench, time: int) -> None:
    """Was: an OverflowError of the database when the difference between the clocks was noted."""
    hello = decode(bench.corpus.frames["hello"])
    assert isinstance(hello, Hello)
    said = decode(encode(replace(hello, time_ms=time)))
    assert isinstance(said, Hello)
    assert 0 <= said.time_ms <= TIME_MS_MAX


def strangers(count: int) -> tuple[Head, ...]:
    """Heads of streams that nobody here has heard of."""
    return tuple(Head(StreamId(UnitPath(CHILD), Epoch(f"{n:016x}"), Scope(CHILD)), 1, bytes(32)) for n in range(count))


def test_what_a_peer_only_names_is_neither_kept_nor_told(bench: Bench) -> None:
    """Was: each ack, refusal and head of any name was kept in memory, and a row for each in the database for good."""
    with bench.on(ABOVE) as (node, connection):
        talk = Talk(node, connection, CHILD)
        streams = execute(connection, "SELECT count(*) FROM _stream").scalar()
        talk.hear([bench.corpus.frames["hello"], encode(HeadsFrame(strangers(50)))])
        ack, refusal = Ack(strangers(60)[50:]), Refusal(strangers(60)[55], "no")
        assert talk.exchange.on_frame(ack) == [PeerHolds(())]
        assert talk.exchange.on_frame(refusal) == []
        assert not talk.exchange.is_refused(refusal.head.stream)
        assert execute(connection, "SELECT count(*) FROM _stream").scalar() == streams


def test_a_set_in_a_contested_row_is_a_value_like_any_other(bench: Bench) -> None:
    """Was: a TypeError wherever two people stood under one key, or two edits met in a row with a set."""
    with bench.on(ABOVE) as (_node, connection):
        assert execute(connection, "SELECT count(*) FROM _row WHERE id = 'both'").scalar() == 2
        rows = execute(connection, "SELECT tongues FROM person WHERE unit = ? AND id = 'both'", (CHILD,))
        assert rows.scalars().all() == ['["Nga"]']


# --- our own faults, one at a time ----------------------------------------------------------------------------------


def nothing(*_arguments: Any) -> None:
    """A check that lets all pass."""


def signature_only(batch: batches.SealedBatch, origin: Any) -> None:
    check_signature(origin.public_key, "batch", batch.header_bytes, batch.signature)


def trusting_inflate(data: bytes, plain_size: int) -> bytes:
    """As the library would have it: a second frame is passed over, and so is the size."""
    try:
        plain: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=plain_size)
    except zstandard.ZstdError as error:
        raise Malformed("a chunk does not decompress") from error
    return plain


def nothing_is_missed(*_arguments: Any) -> list[bytes]:
    return []


def verify_that_writes(connection: Connection, context: Context, data: bytes) -> proving.Verified:
    execute(connection, "INSERT OR REPLACE INTO _meta (key, value) VALUES ('counted', random())")
    return proving.verify(connection, context, data)


def take_anywhere(connection: Connection, _context: Context, verified: proving.Verified) -> inbox.Outcome:
    head = verified.batch.head
    inbox.advance_held(connection, inbox.stream_row(connection, head.stream).no, head)
    return inbox.Outcome(inbox.Taken.APPLIED, head, inbox.Applied())


real_on_batch, real_parse_header = Exchange._on_batch, batches.parse_header


def ack_at_arrival(exchange: Exchange, data: bytes) -> list[Effect]:
    return [Send(Ack((batches.parse_batch(data).head,))), *real_on_batch(exchange, data)]


def last_to_come(_held: frozenset[Any], new: Any, _seen: Any) -> frozenset[Any]:
    return frozenset({new})


def number_past_all(data: bytes) -> batches.BatchHeader:
    header = real_parse_header(data)
    return replace(header, registry_version=(2**64 - 1, header.registry_version[1]))


FAULTS: dict[str, tuple[str, Any, str, Any]] = {
    "the signature is not looked at": ("batch: ", proving, "check_origin", nothing),
    "a chunk's hash is not looked at": ("batch: chunk trap", proving, "check_origin", signature_only),
    "what is missing is not noticed": ("batch: chunk left out", proving, "lacking", nothing_is_missed),
    "the scope is not looked at": ("forged: header scope", proving, "check_admissible", nothing),
    "the library's decompression is trusted": ("forged: chunk trap", chunks, "inflate", trusting_inflate),
    "a refused batch leaves a trace": ("batch: header prev", judge, "verify", verify_that_writes),
    "a chain is not followed": ("forged: place", judge, "take", take_anywhere),
    "an ack follows the arrival": ("talk", Exchange, "_on_batch", ack_at_arrival),
    "the last to come wins": ("forged: entries", register, "add_write", last_to_come),
    "a number is not looked at": ("forged: header again", batches, "parse_header", number_past_all),
    "an error of a library comes through": ("batch: wrong wire type", batches, "DecodeError", KeyError),
    "certificates are kept as they come": ("frame: ", judge, "keep_path", nothing),
    "a set is a list": ("forged: entries", merge, "_frozen", lambda value: value),
}


@pytest.mark.parametrize(("kinds", "where", "name", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_ours_is_seen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kinds: str, where: Any, name: str, fault: Any
) -> None:
    chosen = [at for at, maker in enumerate(run.MAKERS) if maker.startswith(kinds)]
    numbers = [turn * len(run.MAKERS) + at for turn in range(100) for at in chosen]
    monkeypatch.setattr(where, name, fault)
    for number in numbers[:400]:
        mutant, rng = run.make(bench.corpus, SEED, number)
        if bench.judge(mutant, rng, thorough=kinds == "forged: entries").fault is not None:
            return
    pytest.fail("nothing was seen")

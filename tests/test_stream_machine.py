"""One stream and one receiver, whatever comes in whatever order: the receiver holds a prefix of the origin's chain.

The model is a list of hashes and one word; the receiver is a real node on a real file, closed and opened now and then.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from node.storage import inbox, proving
from node.storage.engine import open_engine
from node.storage.inbox import Taken, refuse
from node.storage.registries import registry_for
from node.storage.streams import FROZEN, OPEN, REFUSED, StreamRow, find_stream
from sync_engine.batch import SealedBatch, encode_batch, encode_header
from sync_engine.errors import RemoteFault, RuleBroken
from sync_engine.registry import parse_registry
from tests.forging import PERSON, Stream, deletes, rows
from tests.test_inbox import everything
from tests.world import SHIPPED, World, WorldNode

VANG, HUE, ROOT, TRA = "phu-vang.hue.vn", "hue.vn", "vn", "huong-tra.hue.vn"
MEMBER = parse_registry(SHIPPED).tables["member"]
EXAMPLES = int(os.environ.get("EXAMPLES", "150")) // 6
KEYS = ("1", "2")


class Template:
    """A province that knows its district's certificate, made once and copied for each run."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.hue = self.world.node(HUE)
        Stream(self.world, VANG).certify(self.hue)
        Stream(self.world, ROOT).certify(self.hue)
        self.hue.engine.dispose()

    def copy(self, folder: Path) -> WorldNode:
        path = folder / "hue.db"
        shutil.copy(self.hue.path, path)
        return WorldNode(HUE, self.hue.context, open_engine(path), path, self.hue.certificate)


class OneStream(RuleBasedStateMachine):
    """``chain`` is what the origin sealed, ``held`` how much of it the receiver has, ``applied`` how much is merged,
    ``state`` how it stands; ``causes`` says how much of the root's stream each batch's writer had seen."""

    template: Template

    @initialize(sealed=st.integers(0, 5), come=st.integers(0, 5), sees=st.booleans())
    def begin(self, sealed: int, come: int, sees: bool) -> None:
        self.folder = TemporaryDirectory()
        self.node = self.template.copy(Path(self.folder.name))
        self.origin = Stream(self.template.world, VANG)
        self.chain: list[SealedBatch] = []
        self.held, self.state = 0, OPEN
        self.proof: tuple[SealedBatch, SealedBatch] | None = None
        self.root = Stream(self.template.world, ROOT)
        self.roots: list[SealedBatch] = []
        self.causes: list[int] = []
        self.root_held = self.applied = self.time = 0
        self.keys: set[str] = set()
        self.the_root_seals()
        for number in range(sealed):
            self.the_origin_edits_and_seals(KEYS[number % 2], "edit", sees and number == 3)
        for _ in range(min(come, sealed)):
            self.the_next_comes()

    def teardown(self) -> None:
        self.node.engine.dispose()
        self.folder.cleanup()

    # --- the origin ---

    def section(self, stream: Stream, key: str, what: str) -> Any:
        self.time += 1
        if what == "insert" or key not in self.keys:
            return rows(MEMBER, (key, self.time, {**PERSON, "note": f"n{self.time}"}), new=True)
        if what == "delete":
            return deletes(MEMBER, (key, self.time))
        return rows(MEMBER, (key, self.time, {"note": f"n{self.time}", "languages": (["Anh"], [])}))

    @rule(key=st.sampled_from(KEYS), what=st.sampled_from(["insert", "edit", "edit", "delete"]), sees=st.booleans())
    def the_origin_edits_and_seals(self, key: str, what: str, sees: bool) -> None:
        section = self.section(self.origin, key, what)
        seen = [self.roots[-1].head] if sees and self.roots else []
        self.chain.append(self.origin.batch(section, seen=seen))
        self.causes.append(len(self.roots) if seen else 0)
        self.keys.add(key)

    @rule()
    def the_root_seals(self) -> None:
        self.time += 1
        self.roots.append(self.root.batch(rows(MEMBER, ("root", self.time, PERSON), new=True)))

    # --- what arrives ---

    def takes(self, batch: SealedBatch, expected: Taken) -> None:
        assert self.node.take(batch.data) is expected

    def is_refused(self, data: bytes) -> None:
        before = everything(self.node)
        with pytest.raises(RemoteFault) as caught:
            self.node.take(data)
        assert not isinstance(caught.value, RuleBroken), "nobody signed it, so it is nobody's fault"
        assert everything(self.node) == before

    @precondition(lambda self: self.held < len(self.chain))
    @rule()
    def the_next_comes(self) -> None:
        if self.state == OPEN:
            next_in_turn = self.applied == self.held and self.causes[self.held] <= self.root_held
            self.takes(self.chain[self.held], Taken.APPLIED if next_in_turn else Taken.WAITING)
            self.held += 1
            self.apply()
        else:
            before = everything(self.node, strays=self.state != FROZEN)
            self.takes(self.chain[self.held], Taken.FROZEN)
            assert everything(self.node, strays=self.state != FROZEN) == before

    def apply(self) -> None:
        """What waits is applied in its turn; of a stream that was left, no more."""
        while self.state == OPEN and self.applied < self.held and self.causes[self.applied] <= self.root_held:
            self.applied += 1

    @precondition(lambda self: self.held)
    @rule(back=st.integers(1, 9))
    def a_known_one_comes_again(self, back: int) -> None:
        before = everything(self.node)
        self.takes(self.chain[max(0, self.held - back)], Taken.KNOWN)
        assert everything(self.node) == before, "applying twice changes nothing, bit for bit"

    @precondition(lambda self: self.held + 1 < len(self.chain))
    @rule(ahead=st.integers(1, 9))
    def one_comes_too_early(self, ahead: int) -> None:
        before = everything(self.node, strays=self.state != FROZEN)
        early = self.chain[min(self.held + ahead, len(self.chain) - 1)]
        self.takes(early, Taken.GAP if self.state == OPEN else Taken.FROZEN)
        assert everything(self.node, strays=self.state != FROZEN) == before

    @precondition(lambda self: self.chain)
    @rule(which=st.integers(0, 99), at=st.integers(0, 9_999), bit=st.integers(0, 7))
    def a_garbled_one_comes(self, which: int, at: int, bit: int) -> None:
        data = bytearray(self.chain[which % len(self.chain)].data)
        data[at % len(data)] ^= 1 << bit
        self.is_refused(bytes(data))

    @precondition(lambda self: self.chain)
    @rule(which=st.integers(0, 99), size=st.integers(0, 9_999))
    def a_truncated_one_comes(self, which: int, size: int) -> None:
        data = self.chain[which % len(self.chain)].data
        self.is_refused(data[: size % len(data)])

    @precondition(lambda self: self.held < len(self.chain))
    @rule()
    def the_next_comes_signed_by_another(self) -> None:
        batch = self.chain[self.held]
        signature = self.template.world.tree.node(TRA).signer("batch", batch.header_bytes)
        self.is_refused(encode_batch(batch.header_bytes, signature, batch.chunks))

    @precondition(lambda self: self.held < len(self.chain))
    @rule()
    def the_next_comes_with_anothers_chunks(self) -> None:
        batch, other = self.chain[self.held], Stream(self.template.world, VANG, registry=self.origin.registry)
        made = other.batch(rows(MEMBER, ("9", 1, {**PERSON, "note": "other"}), new=True))
        if len(made.chunks[0]) == len(batch.chunks[0]):
            self.is_refused(encode_batch(batch.header_bytes, batch.signature, made.chunks))

    @precondition(lambda self: self.held)
    @rule(back=st.integers(1, 9))
    def a_fork_comes_at_a_known_number(self, back: int) -> None:
        """Its origin's own key signed another batch there: the stream is frozen, both headers are kept."""
        mine = self.chain[max(0, self.held - back)]
        header = replace(mine.header, again=not mine.header.again)
        other = self.origin.sign(encode_header(header), mine.chunks)
        self.takes(other, Taken.FORKED)
        self.proof = self.proof or (mine, other)
        self.state = FROZEN if self.state == OPEN else self.state

    @precondition(lambda self: self.held)
    @rule()
    def one_comes_that_follows_another_past(self) -> None:
        header = replace(self.chain[self.held - 1].header, seq=self.held + 1, prev=b"\1" * 32)
        stray = self.origin.sign(encode_header(header), self.chain[self.held - 1].chunks)
        self.takes(stray, Taken.FORKED if self.state == OPEN else Taken.FROZEN)
        self.state = FROZEN if self.state == OPEN else self.state

    @precondition(lambda self: self.held)
    @rule()
    def one_comes_that_breaks_a_rule(self) -> None:
        """Signed, in its place, and not lawful: refused with its stream, and nothing of it is kept."""
        last = self.chain[self.held - 1] if self.held else None
        stream = Stream(self.template.world, VANG, last=last)
        bad = stream.batch(rows(MEMBER, ("1", 1, {**PERSON, "note": "a\u0301"}), new=True))
        with pytest.raises(RuleBroken) as caught:
            self.node.take(bad.data)
        with self.node.write() as connection:
            refuse(connection, caught.value)
        self.state = REFUSED if self.state == OPEN else self.state

    # --- the receiver, and others ---

    @rule()
    def the_receiver_is_closed_and_opened(self) -> None:
        before = everything(self.node)
        self.node.engine.dispose()
        self.node.engine = open_engine(self.node.path)
        assert everything(self.node) == before

    @precondition(lambda self: self.keys)
    @rule(key=st.sampled_from(KEYS))
    def people_edit_at_the_receiver(self, key: str) -> None:
        self.node.sql("UPDATE member SET note = 'mine' WHERE unit = ? AND id = ?", VANG, key)

    @precondition(lambda self: self.root_held < len(self.roots))
    @rule()
    def another_stream_goes_on(self) -> None:
        self.takes(self.roots[self.root_held], Taken.APPLIED)
        self.root_held += 1
        self.apply()

    # --- always ---

    def row(self, stream: Stream) -> StreamRow | None:
        with self.node.read() as connection:
            return find_stream(connection, stream.id)

    @invariant()
    def what_is_held_is_a_prefix_of_the_chain(self) -> None:
        stored = self.node.sql(
            "SELECT seq, hash, data FROM _batch JOIN _stream ON _stream.no = _batch.stream"
            " WHERE origin = ? AND scope = ? ORDER BY seq",
            VANG, VANG,
        )  # fmt: skip
        expected = self.chain[: self.held]
        assert stored == [(seq, each.head.hash, each.data) for seq, each in enumerate(expected, 1)]

    @invariant()
    def heads_stand_where_the_model_says(self) -> None:
        row, root = self.row(self.origin), self.row(self.root)
        last = self.chain[self.held - 1].head if self.held else None
        merged = self.chain[self.applied - 1].head if self.applied else None
        if row is not None:
            assert (row.held, row.applied, row.state) == (last, merged, self.state)
        assert last is None or row is not None
        assert (0 if root is None or root.held is None else root.held.seq) == self.root_held

    @invariant()
    def a_fork_leaves_both_signed_headers(self) -> None:
        kept = self.node.sql("SELECT first_header, first_signature, second_header, second_signature FROM _fork")
        if self.proof is None:
            assert kept == []
        else:
            mine, other = self.proof
            assert kept == [(mine.header_bytes, mine.signature, other.header_bytes, other.signature)]


def run(folder: Path, examples: int, *phases: Phase) -> None:
    OneStream.template = Template(folder)
    run_state_machine_as_test(
        OneStream,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=phases or tuple(Phase),
            derandomize=bool(phases),  # a fault that is seen today is seen tomorrow
            database=None if phases else settings().database,
        ),
    )


def test_one_stream_whatever_comes(tmp_path: Path) -> None:
    run(tmp_path, EXAMPLES)


# --- our own faults, one at a time ----------------------------------------------------------------------------------


def nothing(*_arguments: Any) -> None:
    """A check that lets all pass, or a step left out."""


def frozen_without_proof(connection: Any, _context: Any, row: StreamRow, batch: SealedBatch) -> None:
    inbox.leave(connection, row.no, FROZEN, "fork")


def any_place(connection: Any, context: Any, row: StreamRow, batch: SealedBatch) -> bool:
    return registry_for(connection, context, batch) is not None


FAULTS: dict[str, tuple[str, Any]] = {
    "the signature is not looked at": ("check_origin", nothing),
    "a known batch is not known": ("is_stored", lambda _connection, _digest: False),
    "a fork freezes nothing": ("note_fork", nothing),
    "a fork's proof is not kept": ("note_fork", frozen_without_proof),
    "what its writer had seen is not waited for": ("is_ready", any_place),
}


@pytest.mark.parametrize(("name", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_ours_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, fault: Any) -> None:
    run_template = Template(tmp_path)  # made by sound code
    monkeypatch.setattr(sys.modules[__name__], "Template", lambda _folder: run_template)
    monkeypatch.setattr(proving if name == "check_origin" else inbox, name, fault)
    with pytest.raises((Exception, pytest.fail.Exception)):
        run(tmp_path, 80, Phase.generate)

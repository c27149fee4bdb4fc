"""What happens after a death: start-up, the oracle, the step done again, the final state.

Role: bring a survivor to its end and compare it with an undisturbed run's.
Reach: node, oracle. Invariant: everything that opens the survivor's files runs in forked processes.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from node import config as configs
from node.keys import KeyStore
from node.local import context_of, database_path
from node.storage.digests import digest_scope
from node.storage.engine import open_engine
from node.storage.inbox import apply_waiting, next_ready
from node.storage.report import scopes_held
from node.storage.sealing import seal_all
from sync_engine.errors import NotSetUp
from tests.crash import actor, homes
from tests.crash.actor import Ended, Tell, Told
from tests.crash.fuses import Fuse
from tests.crash.oracle import Promise, agreed, faults_of
from tests.crash.steps import DYING, PEER, Scene, Step

Final = dict[str, Any]
Lives = tuple[Ended, Ended | None]
"""How the dying process and its peer ended."""


def live(step: Step, stage: Path, place: Path, fuse: Fuse | None = None) -> Lives:
    """One run of a step, to its end or its death."""
    fuse = fuse or Fuse()
    mine, theirs = socket.socketpair() if step.answer is not None else (None, None)

    def work(tell: Tell) -> None:
        fuse.install(place, tell)
        step.run(Scene(stage, place, tell, lambda: fuse.start(place), mine, fuse.again))
        fuse.end(tell)

    ends = [each.fileno() for each in (theirs,) if each is not None]
    dying = actor.fork(work, close=[*ends, *fuse.not_for_the_dying], also=fuse.also)
    answering = None
    if step.answer is not None and mine is not None:
        respond = step.answer
        close = [mine.fileno(), dying.pipe]
        answering = actor.fork(lambda tell: respond(Scene(stage, place, tell, line=theirs)), close=close)
    for each in (mine, theirs):
        if each is not None:
            each.close()
    fuse.attend(dying)
    ended = dying.wait()
    fuse.clear()
    return ended, None if answering is None else answering.wait()


@dataclass
class Verdict:
    faults: list[str] = field(default_factory=list)
    final: Final | None = None


def _recover(step: Step, place: Path) -> None:
    """Start-up as production does it; a home that is not set up yet says so, and is set up again."""

    async def main() -> None:
        async with homes.opened(place / DYING):
            pass

    try:
        asyncio.run(main())
    except NotSetUp:
        if not step.is_new:
            raise


def examine(step: Step, place: Path, told: Told, *, is_fresh: bool = True) -> list[str]:
    """Start-up (unless that has been done since) and the oracle, in this process."""
    if is_fresh:
        _recover(step, place)
    if step.is_new and not configs.path_of(place / DYING).exists():
        promised = Promise.of(told, []).was_set_up
        return ["I17: the set-up was told to be done and is gone"] if promised else []
    return faults_of(step, place, told)


def finish(step: Step, stage: Path, place: Path, tell: Tell) -> None:
    """The step once more, undisturbed, in this process."""
    step.run(Scene(stage, place, tell))


def judge(step: Step, stage: Path, place: Path, told: Told, final: Final | None) -> Verdict:
    """All that follows a death. ``final`` is the undisturbed run's state; None: this is that run."""
    verdict = Verdict()

    def work(tell: Tell) -> None:
        found = examine(step, place, told)
        tell("faults", found)
        if step.answer is None and not found:
            lives: Told = [*told]
            finish(step, stage, place, _Echo(tell, lives))
            tell("faults", examine(step, place, lives, is_fresh=False))
            tell("final", final_state(step, place / DYING))

    _hear(actor.run(work), verdict)
    if step.answer is not None and not verdict.faults:
        mine, theirs = live(step, stage, place)
        _hear(mine, verdict)
        lives = [*told, *mine.told]
        verdict.faults += both_ends(place, mine, theirs)

        def again(tell: Tell) -> None:
            tell("faults", examine(step, place, lives, is_fresh=False) + agreed(place))
            tell("final", [final_state(step, place / name) for name in (DYING, PEER)])

        _hear(actor.run(again), verdict)
    if final is not None and verdict.final is not None and verdict.final != final:
        verdict.faults.append(f"the final state differs: {difference(verdict.final, final)}")
    elif verdict.final is None and not verdict.faults:
        verdict.faults.append("no final state was reached")
    return verdict


class _Echo(Tell):
    """Tells the pipe and a list."""

    def __init__(self, tell: Tell, lives: Told) -> None:
        super().__init__(tell.descriptor)
        self.lives = lives

    def __call__(self, kind: str, what: Any = None) -> None:
        self.lives.append((kind, what))
        super().__call__(kind, what)


def _hear(ended: Ended, verdict: Verdict) -> None:
    for faults in ended.of("faults"):
        verdict.faults += faults
    for final in ended.of("final"):
        verdict.final = final
    if ended.raised is not None:
        raised = ended.raised
        verdict.faults.append(f"after the death: {raised['type']}: {raised['message']}\n{raised.get('trace', '')}")
    elif ended.signal or ended.code:
        verdict.faults.append(f"after the death: the process ended with signal {ended.signal}, code {ended.code}")


def both_ends(place: Path, mine: Ended, theirs: Ended | None) -> list[str]:
    """The session after the death went through at the peer, too."""
    faults = []
    for ended in (mine, theirs):
        if ended is not None and (ended.raised is not None or ended.of("cut")):
            faults.append(f"the session after the death failed: {ended.raised or ended.of('cut')}")
    return faults


# --- the final state -------------------------------------------------------------------------------------------------


def final_state(step: Step, home: Path) -> Final:
    """Everything that must not depend on how often the process died: tables, notes, digests, conflicts, numbers."""
    found: Final = _settle_and_digest(home)
    with homes.client(home) as connection:

        def table(sql: str) -> list[list[Any]]:
            rows = [
                [each.hex() if isinstance(each, bytes) else each for each in row] for row in connection.execute(sql)
            ]
            return sorted(rows, key=repr)

        found["schema"] = table("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
        there = {row[1] for row in found["schema"]}
        tables = {"member", "catalog", "_unit", "_registry", "_set_aside", "_capture", "_writable_unit"}
        for name in sorted(tables & there):
            found[name] = table(f"SELECT * FROM {name}")
        found["_pending"] = table("SELECT unit, tbl, id, kind, mask, image FROM _pending")
        columns = "number, name, tbl, id, identity, field, policy, state, live, writes"
        conflicts = table(f"SELECT {columns} FROM _conflict JOIN _scope ON _scope.no = _conflict.scope")
        found["_conflict"] = [  # a write's last part is its batch's number here, which a death may have used up
            [*row, [str(write[:5]) for write in msgspec.msgpack.decode(bytes.fromhex(raw))]] for *row, raw in conflicts
        ]
        found["_stream"] = table("SELECT origin, scope, held_seq, applied_seq, state FROM _stream")
        found["_batch"] = table(
            "SELECT origin, scope, _batch.seq, entries, registry, _batch.state"
            " FROM _batch JOIN _stream ON _stream.no = _batch.stream"
        )
        found["_meta"] = table("SELECT key, value FROM _meta")
    if step.is_new:
        found.pop("digests")  # their times are of the real clock
    return found


def _settle_and_digest(home: Path) -> Final:
    """What is pending is sealed, what may be applied is; then the registers' digests by scope."""
    context = context_of(KeyStore.load(home))
    context.now_ms = lambda: homes.START_MS + homes.NOW * homes.MINUTE_MS
    engine = open_engine(database_path(home))
    try:
        with engine.begin() as connection:
            seal_all(connection, context)
            while (stream := next_ready(connection, context)) is not None:
                apply_waiting(connection, context, stream)
            found = {scope: digest_scope(connection, context, scope) for scope in scopes_held(connection, context)}
    finally:
        engine.dispose()
    digests = {scope: [each.rows, each.digest.hex(), _in_hex(each.columns)] for scope, each in found.items()}
    return {"digests": digests}


def _in_hex(columns: dict[str, bytes]) -> dict[str, str]:
    return {name: value.hex() for name, value in sorted(columns.items())}


def difference(one: Any, other: Any, at: str = "") -> str:
    """Where two states first differ."""
    if (
        isinstance(one, list)
        and isinstance(other, list)
        and len(one) == len(other)
        and one
        and isinstance(one[0], dict)
    ):
        return "; ".join(
            difference(a, b, f"{at}[{number}]") for number, (a, b) in enumerate(zip(one, other, strict=True)) if a != b
        )
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
        return "; ".join(difference(one.get(key), other.get(key), f"{at}.{key}") for key in keys)
    return f"{at}: {str(one)[:300]} where it should be {str(other)[:300]}"

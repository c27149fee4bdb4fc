"""The steps in which a process dies: production code on prepared homes, and what it tells.

Role: for each step, how its homes are prepared, what the dying process does, and who its peer is.
Reach: node. Invariant: each step can be run again on whatever an earlier run left, and then ends as if undisturbed;
what is told is told after the commit that makes it so, and before the bytes of an ack leave.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conflict.values import Head, UnitPath
from node import config as configs
from node import setup
from node.config import Config, Schedule
from node.keys import KeyStore
from node.local import Node
from node.session import Session
from node.storage.inbox import Taken
from node.storage.meta import set_meta
from node.storage.streams import held_heads, streams
from sync_engine.errors import LinkFault
from tests.crash import homes, story
from tests.crash.actor import Tell, describe
from tests.crash.story import CHILD, PARENT, ROOT, UNIT

DYING, PEER = "dying", "peer"


@dataclass
class Scene:
    """What a step is given: the place with its homes, its way to tell, and when to start counting."""

    stage: Path
    place: Path
    tell: Tell
    ready: Callable[[], None] = lambda: None
    line: socket.socket | None = None
    again: Callable[[], bool] = lambda: False
    """After a fault of the store: whether to try again in this process. Waits until the cause is mended."""

    @property
    def home(self) -> Path:
        return self.place / DYING


@dataclass(frozen=True)
class Step:
    name: str
    prepare: Callable[[Path, Path], None]
    """(stage, place): puts the homes there. Runs in a process of its own, which may kill itself."""
    run: Callable[[Scene], None]
    answer: Callable[[Scene], None] | None = None
    """What the peer does, if there is one."""
    unit: str = UNIT
    is_new: bool = False
    """Whether there may be no database yet."""


Work = Callable[[Node, Scene], Awaitable[None]]


def named(heads: list[Head]) -> list[list[Any]]:
    return [[head.stream.origin, head.stream.epoch, head.stream.scope, head.seq, head.hash.hex()] for head in heads]


async def tell_heads(node: Node, tell: Tell) -> None:
    held = await node.database.read(lambda connection: list(held_heads(connection).values()))
    applied = await node.database.read(lambda connection: [row.applied for row in streams(connection) if row.applied])
    tell("held", named(held))
    tell("applied", named(applied))


def _persisting(scene: Scene, attempt: Callable[[], None]) -> None:
    """Try, and after a fault of the store try again in the same process, where the scene wants it."""
    while True:
        try:
            return attempt()
        except Exception as error:
            scene.tell("fault", describe(error))
            if not scene.again():
                raise


def node_step(work: Work, then: Work | None = None) -> Callable[[Scene], None]:
    """A step of an open node. ``then`` is how it goes on after a fault, if it is not tried again as it was."""

    async def main(scene: Scene) -> None:
        async with homes.opened(scene.home) as node:
            scene.ready()
            doing = work
            while True:
                try:
                    return await doing(node, scene)
                except Exception as error:
                    scene.tell("fault", describe(error))
                    if not scene.again():
                        raise
                doing = then or work

    return lambda scene: asyncio.run(main(scene))


# --- capture ---------------------------------------------------------------------------------------------------------


def capture(scene: Scene) -> None:
    """A local program: three transactions. What it finds done it does not do again."""

    with homes.client(scene.home, homes.LOCAL_AT) as connection:
        rows = homes.read_rows(connection)
        done = next((at for at, (state, _) in enumerate(story.STATES) if state == rows), None)
        if done is None:
            raise AssertionError("the tables are in none of the states between transactions")
        scene.ready()

        def attempt() -> None:
            nonlocal done
            assert done is not None
            for ops in story.LOCAL[done:]:
                try:
                    homes.transaction(connection, ops)
                except Exception:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                done += 1
                scene.tell("done", done)

        _persisting(scene, attempt)


# --- seal and apply --------------------------------------------------------------------------------------------------


async def seal(node: Node, scene: Scene) -> None:
    while await node.seal_next():
        await tell_heads(node, scene.tell)


async def apply(node: Node, scene: Scene) -> None:
    """Batches as they come: the last first. Each outcome is told, as an ack would be."""
    for number in story.ARRIVAL:
        verified = await node.verify((scene.stage / "coming" / str(number)).read_bytes())
        outcome = await node.take(verified)
        assert outcome.held is not None
        scene.tell("held", named([outcome.held]))
        if outcome.taken is Taken.APPLIED:
            scene.tell("applied", named([outcome.held]))
        await node.apply_ready()
    await tell_heads(node, scene.tell)


# --- ack: a session over a socket ------------------------------------------------------------------------------------


class Wire:
    """Frames over a socket. Each is told before it leaves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tell: Tell | None) -> None:
        self._reader, self._writer, self._tell = reader, writer, tell

    async def send(self, data: bytes) -> None:
        if self._tell is not None:
            self._tell("frame", data.hex())
        try:
            self._writer.write(len(data).to_bytes(4, "little") + data)
            await self._writer.drain()
        except OSError as error:
            raise LinkFault("the peer has gone") from error

    async def receive(self) -> bytes | None:
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "little")
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            return None


async def go_on(node: Node, scene: Scene) -> None:
    """A node whose session a fault has ended, before the next session."""
    await node.seal()
    await node.apply_ready()
    await tell_heads(node, scene.tell)


def session(peer: str) -> Work:
    async def work(node: Node, scene: Scene) -> None:
        assert scene.line is not None
        reader, writer = await asyncio.open_connection(sock=scene.line)
        unit = node.config.unit
        child = unit if len(unit) > len(peer) else UnitPath(peer)
        try:
            wire = Wire(reader, writer, scene.tell)
            await Session(node, wire, child=child, peer=UnitPath(peer), progress=lambda _: None).run()
            if unit == child:  # who dials waits for the other to end its side, as ``parent_link`` does
                writer.write_eof()
                while await wire.receive() is not None:
                    pass
        finally:
            writer.close()
        await tell_heads(node, scene.tell)

    return work


def answer(peer: str) -> Callable[[Scene], None]:
    """The other end, in its own process; the death of the one that dies ends its session."""

    async def main(scene: Scene) -> None:
        async with homes.opened(scene.place / PEER) as node:
            try:
                await session(peer)(node, scene)
            except LinkFault as fault:
                scene.tell("cut", str(fault))

    return lambda scene: asyncio.run(main(scene))


# --- start-up and set-up ---------------------------------------------------------------------------------------------


def start_up(scene: Scene) -> None:
    async def main() -> None:
        async with homes.opened(scene.home) as node:
            await tell_heads(node, scene.tell)

    scene.ready()
    _persisting(scene, lambda: asyncio.run(main()))


def set_up(scene: Scene) -> None:
    """A unit that joined: keys are there, the database is made, the configuration comes last."""

    def attempt() -> None:
        setup.make_database(scene.home, KeyStore.load(scene.home))
        configs.save(scene.home, Config(UnitPath(CHILD), CHILD))
        scene.tell("set up")

    scene.ready()
    _persisting(scene, attempt)


def init(scene: Scene) -> None:
    """A root from nothing: keys, database, first batches, configuration."""

    def attempt() -> None:
        if not configs.path_of(scene.home).exists():  # else it would say so, and acknowledge nothing
            setup.init(scene.home, ROOT, ROOT, homes.REGISTRY, listen="", address="", schedule=Schedule())
            scene.tell("set up")

    scene.ready()
    _persisting(scene, attempt)


# --- how homes are prepared ------------------------------------------------------------------------------------------


def _copy(stage: Path, place: Path, dying: str, peer: str = "") -> None:
    shutil.copytree(stage / dying, place / DYING)
    if peer:
        shutil.copytree(stage / peer, place / PEER)


def at_base(stage: Path, place: Path) -> None:
    _copy(stage, place, f"base/{UNIT}")


def with_local_edits(stage: Path, place: Path) -> None:
    at_base(stage, place)
    homes.play_local(place / DYING)


def before_session(stage: Path, place: Path) -> None:
    _copy(stage, place, f"base/{UNIT}", f"ahead/{PARENT}")
    homes.play_local(place / DYING)


def before_serving(stage: Path, place: Path) -> None:
    _copy(stage, place, f"ahead/{PARENT}", f"base/{UNIT}")
    homes.play_local(place / PEER)


def after_a_crash(stage: Path, place: Path) -> None:
    """Killed between two batches: a log with commits that are in no database file yet, and a half-done transaction."""
    with_local_edits(stage, place)

    async def main() -> None:
        async with homes.opened(place / DYING) as node:
            for number in story.ARRIVAL[:2]:
                await node.take(await node.verify((stage / "coming" / str(number)).read_bytes()))
            with homes.client(place / DYING) as other:
                other.execute("PRAGMA cache_size = 1")  # so that it spills into the log before it is over
                other.execute("BEGIN IMMEDIATE")
                other.execute("UPDATE _capture SET applying = 1")
                other.execute("UPDATE member SET note = 'never'")
                os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())


def after_an_upgrade(stage: Path, place: Path) -> None:
    """As another version of the software left it, also by a crash."""
    with_local_edits(stage, place)

    async def main() -> None:
        async with homes.opened(place / DYING) as node:
            await node.database.write(set_meta, "made_by", "another version")
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())


def with_keys_alone(stage: Path, place: Path) -> None:
    _copy(stage, place, "new")


def with_nothing(_stage: Path, place: Path) -> None:
    (place / DYING).mkdir()


STEPS = {
    step.name: step
    for step in (
        Step("capture", at_base, capture),
        Step("seal", with_local_edits, node_step(seal)),
        Step("apply", with_local_edits, node_step(apply)),
        Step("ack", before_session, node_step(session(PARENT), go_on), answer(UNIT)),
        Step("serve", before_serving, node_step(session(UNIT), go_on), answer(PARENT), unit=PARENT),
        Step("start-up", after_a_crash, start_up),
        Step("upgrade", after_an_upgrade, start_up),
        Step("set-up", with_keys_alone, set_up, unit=CHILD, is_new=True),
        Step("init", with_nothing, init, unit=ROOT, is_new=True),
    )
}

"""``recover --from-parent``: a unit begins again, with its parent's approval.

Role: new keys for an empty home, or the certification of a life that a home has begun; then a first exchange, which
brings back what others hold.
Reach: node.setup, node.keys, node.parent_link, node.commands.exchange. Invariant: interrupted, it is run again with the
same invitation: the same request gets the same answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from node import config as configs
from node import keys as key_files
from node import platform, setup
from node.commands.exchange import sync
from node.config import AtRest, Config, Schedule
from node.invitation import Invitation
from node.keys import KeyStore
from node.local import Node
from node.parent_link import enrol
from node.storage.audit import note
from node.storage.revocations import waits_for_an_edit
from sync_engine.audit import Act
from sync_engine.errors import BadInvitation, LinkFault, WrongTree

CERTIFIED = (
    "the new keys are certified and in place: 'dongbo run' fetches what the parent holds, or the same command once more"
)


def schedule_of(every: float | None) -> Schedule | None:
    """None: as it was, or as a new node has it."""
    return None if every is None else Schedule(every_s=every, jitter_s=min(5.0, every / 10))


async def from_parent(
    home: Path,
    invitation: Invitation,
    listen: str | None,
    address: str | None,
    schedule: Schedule | None,
    at_rest: AtRest,
) -> dict[str, Any]:
    """What ``sync`` tells of the first exchange, and for which unit; ``at_rest`` is for an empty home. Raises
    BadInvitation, WrongTree, LinkFault or what the parent refuses with."""
    if not configs.path_of(home).exists():
        settings: dict[str, Any] = {"listen": listen or "", "address": address or "", "at_rest": at_rest}
        config = await setup.join(home, invitation, schedule=schedule or Schedule(), **settings)
        return {"unit": config.unit, "name": config.name, "ok": True}
    with platform.HomeLock(home):
        config = _merged(configs.load(home), invitation, listen, address, schedule)
        await _certify(home, config, invitation)
        configs.save(home, config)
        node = await Node.open(home)
        try:
            await node.database.write(note, node.context, Act.RECOVER, {"unit": config.unit, "epoch": node.keys.epoch})
            done: dict[str, Any] = await sync(node, {}, lambda _progress: None)
            done["counts_with_next_edit"] = await node.database.read(waits_for_an_edit, node.context)
        except LinkFault as fault:  # such as the other machine, which calls in the same moment and does not know yet
            fault.hint = CERTIFIED
            raise
        finally:
            await node.close()
        _mark_of(home).unlink(missing_ok=True)
    return {"unit": config.unit, "name": config.name, **done}


def _mark_of(home: Path) -> Path:
    """Names the invitation whose use was begun and not ended: it is good once, so no second life is asked with it."""
    return home / "keys" / "recovering"


def _merged(
    config: Config, invitation: Invitation, listen: str | None, address: str | None, schedule: Schedule | None
) -> Config:
    """The home's settings, with what was said now. Raises BadInvitation for one of another unit."""
    if config.unit != invitation.unit:
        raise BadInvitation(
            f"the invitation is for {invitation.unit}, and this home is {config.unit}'s",
            hint=f"ask for one for {config.unit}, or choose another --home",
        )
    return replace(
        config,
        parent_address=invitation.address,
        listen=config.listen if listen is None else listen,
        address=config.address if address is None else address,
        schedule=schedule or config.schedule,
    )


async def _certify(home: Path, config: Config, invitation: Invitation) -> None:
    """Have the life that waits certified; one is begun where none does."""
    keys = KeyStore.load(home, config.ca_key_file)
    if keys.tree_id != invitation.tree_id:
        raise WrongTree("the invitation belongs to another tree than this home")
    mark, name = _mark_of(home), sha256(invitation.path[0]).digest()
    begun = mark.exists() and mark.read_bytes() == name
    if key_files.pending(home) is None and not begun:
        await _begin_life(home)
    waiting = key_files.pending(home)
    if waiting is None:
        return  # certified before something came between: only the exchange is left
    platform.write_private(mark, name)
    answer = await enrol(invitation, waiting)
    await asyncio.to_thread(setup.keep_answer, home, keys, answer)
    await asyncio.to_thread(
        KeyStore.install,
        home,
        list(answer.node_path),
        answer.ca_certificate,
        invitation.tree_id,
        config.ca_key_file,
    )


async def _begin_life(home: Path) -> None:
    """What is pending is sealed under the new life, in which nothing stands yet."""
    node = await Node.open(home)
    try:
        await node.begin_life(node.context.epoch)
    finally:
        await node.close()

"""``recover --from-parent``: a unit begins again, with its parent's approval.

Role: new keys for an empty home, or the certification of a life that a home has begun; then a first exchange, which
brings back what others hold.
Reach: node.setup, node.keys, node.parent_link, node.commands.exchange. Invariant: interrupted, it is run again with the
same invitation: the same request gets the same answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from node import config as configs
from node import keys as key_files
from node import platform, setup
from node.commands.exchange import sync
from node.config import Config, Schedule
from node.invitation import Invitation
from node.keys import KeyStore
from node.local import Node
from node.parent_link import enrol
from sync_engine.errors import BadInvitation, WrongTree


def schedule_of(every: float | None) -> Schedule | None:
    """None: as it was, or as a new node has it."""
    return None if every is None else Schedule(every_s=every, jitter_s=min(5.0, every / 10))


async def from_parent(
    home: Path, invitation: Invitation, listen: str | None, address: str | None, schedule: Schedule | None
) -> dict[str, Any]:
    """What ``sync`` tells of the first exchange, and for which unit. Raises BadInvitation, WrongTree, LinkFault or what
    the parent refuses with."""
    if not configs.path_of(home).exists():
        config = await setup.join(
            home, invitation, listen=listen or "", schedule=schedule or Schedule(), address=address or ""
        )
        return {"unit": config.unit, "name": config.name, "ok": True}
    with platform.HomeLock(home):
        config = _merged(configs.load(home), invitation, listen, address, schedule)
        await _certify(home, config, invitation)
        configs.save(home, config)
        node = await Node.open(home)
        try:
            done: dict[str, Any] = await sync(node, {}, lambda _progress: None)
        finally:
            await node.close()
    return {"unit": config.unit, "name": config.name, **done}


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
    if key_files.pending(home) is None:
        await _begin_life(home)
    waiting = key_files.pending(home)
    assert waiting is not None  # noqa: S101 - begun just now
    answer = await enrol(invitation, waiting)
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

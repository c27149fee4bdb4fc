"""Notes for the audit chain where an act has no transaction of its own, or did not come about.

Role: who gives a command; commands that were refused; what was refused to peers, so many a day.
Reach: node.storage.audit. Source: decision 0028. Invariant: a peer cannot fill the disk by being refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node import config as configs
from node.storage import audit
from node.storage.audit import Subject, acting, note
from node.storage.inbox import refuse
from sync_engine.audit import DONE, Act
from sync_engine.errors import LocalFault, ReplicationError, RuleBroken

if TYPE_CHECKING:
    from node.local import Node

COMMANDS: Mapping[str, Act] = {
    "load": Act.LOAD,
    "dump": Act.DUMP,
    "resolve": Act.RESOLVE,
    "release_held": Act.RELEASE_HELD,
    "refuse_held": Act.REFUSE_HELD,
    "invite": Act.INVITE,
    "approve_request": Act.INVITE,
    "release": Act.RELEASE,
    "undo": Act.UNDO,
    "registry_apply": Act.APPLY,
    "rotate": Act.ROTATE,
    "revoke": Act.REVOKE,
    "recover": Act.RECOVER,
    "restore": Act.RESTORE,
    "backup": Act.BACKUP,
    "repair": Act.REPAIR,
}
"""Commands of which also the refusal is recorded, by the names they have in ``node.commands``."""

_PLAIN = re.compile("[a-z0-9_.-]{1,100}")


async def record(node: Node, act: Act, subject: Subject = {}, *, outcome: str = DONE) -> None:  # noqa: B006 - read only
    """Add a record in a transaction of its own."""
    await node.database.write(note, node.context, act, subject, outcome=outcome)


def by_whom(arguments: Mapping[str, Any]) -> str:
    """A clerk by the name that was given, and the account of the machine; either may be missing."""
    name, account = (str(arguments.get(key) or "").strip() for key in ("by", "who"))
    return f"{name} ({account})" if name and account else name or account


async def commanded(
    name: str, command: Callable[..., Awaitable[Any]], node: Node, arguments: Mapping[str, Any], progress: Any
) -> Any:
    """Run a command in the name of whoever gives it; that it was refused, and why, is recorded as well."""
    with acting(by_whom(arguments)):
        try:
            return await command(node, arguments, progress)
        except ReplicationError as fault:
            if name in COMMANDS:
                with suppress(LocalFault):  # what the command failed with says more
                    await record(node, COMMANDS[name], _asked(arguments), outcome=fault.code)
            raise


def _asked(arguments: Mapping[str, Any]) -> Subject:
    """What a command was about. Of what was typed only that which can be no person's name."""
    found: dict[str, str | int] = {}
    if isinstance(arguments.get("number"), int):
        found["number"] = arguments["number"]
    for key in ("table", "unit", "label"):
        if _PLAIN.fullmatch(str(arguments.get(key) or "")):
            found[key] = str(arguments[key])
    if arguments.get("file"):
        found["file"] = Path(str(arguments["file"])).name
    return found


# --- what peers are refused ---


async def refused(node: Node, peer: str, act: Act, subject: Subject, code: str) -> None:
    """Note what was refused to a peer, as long as it has not been refused too often."""
    if node.caps.may_note(peer):
        with suppress(LocalFault):
            await record(node, act, {"peer": peer, **subject}, outcome=code)


async def batch_refused(node: Node, peer: str, fault: RuleBroken) -> None:
    """Leave a stream that breaks a rule, and put it on record."""
    await node.database.write(refuse, fault)
    await refused(node, peer, Act.BATCH_REFUSED, {"stream": str(fault.head.stream), "seq": fault.head.seq}, fault.code)


# --- the service ---


async def started(node: Node) -> None:
    """A service begins; settings that were changed since the last time are told first."""
    digest = sha256(configs.path_of(node.home).read_bytes()).hexdigest()
    await node.database.write(_started, node, digest)


def _started(connection: Any, node: Node, digest: str) -> None:
    audit.note_config(connection, node.context, digest)
    note(connection, node.context, Act.START)


async def stopped(node: Node) -> None:
    with suppress(LocalFault):
        await record(node, Act.STOP)

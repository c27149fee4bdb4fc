"""The commands, each one function of an open node: the same whether the service runs them or the command line does.

Role: names to functions. A command takes JSON-able arguments and gives a JSON-able answer; ``progress`` may be called
meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from node.auditing import commanded
from node.local import Node

Progress: TypeAlias = Callable[[Mapping[str, Any]], None]
Command: TypeAlias = Callable[[Node, Mapping[str, Any], Progress], Awaitable[Any]]


def commands() -> Mapping[str, Command]:
    """Every command by name."""
    from node.commands.accidents import release, undo
    from node.commands.audit import audit
    from node.commands.backup import backup_home
    from node.commands.bulk import dump, load
    from node.commands.carrying import export, import_
    from node.commands.duplicates import duplicates
    from node.commands.exchange import sync
    from node.commands.granting import approve_request, look_at_request
    from node.commands.journal import conflicts, resolve_conflict
    from node.commands.past import history
    from node.commands.proof import verify
    from node.commands.quarantine import quarantine, refuse_held, release_held
    from node.commands.registry import registry_apply, registry_plan, registry_show
    from node.commands.state import status
    from node.commands.tree import invite, units
    from node.commands.trust import approve, recover, revoke, rotate

    every: dict[str, Command] = {
        "status": status,
        "sync": sync,
        "load": load,
        "dump": dump,
        "conflicts": conflicts,
        "resolve": resolve_conflict,
        "quarantine": quarantine,
        "release_held": release_held,
        "refuse_held": refuse_held,
        "duplicates": duplicates,
        "verify": verify,
        "backup": backup_home,
        "export": export,
        "import": import_,
        "units": units,
        "invite": invite,
        "rotate": rotate,
        "recover": recover,
        "revoke": revoke,
        "approve": approve,
        "look_at_request": look_at_request,
        "approve_request": approve_request,
        "release": release,
        "undo": undo,
        "history": history,
        "registry_show": registry_show,
        "registry_plan": registry_plan,
        "registry_apply": registry_apply,
        "audit": audit,
    }
    return {name: partial(commanded, name, command) for name, command in every.items()}

"""The commands, each one function of an open node: the same whether the service runs them or the command line does.

Role: names to functions. A command takes JSON-able arguments and gives a JSON-able answer; ``progress`` may be called
meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from node.local import Node

Progress: TypeAlias = Callable[[Mapping[str, Any]], None]
Command: TypeAlias = Callable[[Node, Mapping[str, Any], Progress], Awaitable[Any]]


def commands() -> Mapping[str, Command]:
    """Every command by name."""
    from node.commands.accidents import release, undo
    from node.commands.bulk import dump, load
    from node.commands.duplicates import duplicates
    from node.commands.exchange import sync
    from node.commands.journal import conflicts, resolve_conflict
    from node.commands.past import history
    from node.commands.proof import verify
    from node.commands.quarantine import quarantine, refuse_held, release_held
    from node.commands.registry import registry_apply, registry_plan, registry_show
    from node.commands.state import status
    from node.commands.tree import invite, units
    from node.commands.trust import recover, rotate

    return {
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
        "units": units,
        "invite": invite,
        "rotate": rotate,
        "recover": recover,
        "release": release,
        "undo": undo,
        "history": history,
        "registry_show": registry_show,
        "registry_plan": registry_plan,
        "registry_apply": registry_apply,
    }

"""Tables and units as people name them: by name or by label, in any case.

Role: from a word to the table or the unit that is meant.
Reach: the registry in force, node.messages. Invariant: a word that could mean two is refused, not guessed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from sqlalchemy import Connection

from node.messages import say
from node.storage.context import Context
from node.storage.registries import current_registry
from sync_engine.errors import BadInput
from sync_engine.registry import Table


def folded(text: str) -> str:
    """What two spellings of one name have in common: case, blanks, line breaks and a closing star do not count."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).rstrip(" *:")


def table_named(connection: Connection, context: Context, name: str) -> Table:
    """A table of the registry in force, by its name or label. Raises BadInput."""
    tables = current_registry(connection, context).tables
    for table in tables.values():
        if folded(name) in (folded(table.name), folded(table.label)):
            return table
    raise BadInput(say("named.no_table", table=name, tables=", ".join(tables)))


def unit_named(units: Iterable[str], name: str) -> str:
    """One of ``units``, by its path, or by its first label where only one is called so. Raises BadInput."""
    wanted = name.casefold()
    found = [each for each in sorted(set(units)) if wanted in (each, each.partition(".")[0])]
    if wanted in found:
        return wanted
    if len(found) != 1:
        raise BadInput(say("named.units" if found else "named.no_unit", unit=name))
    return found[0]

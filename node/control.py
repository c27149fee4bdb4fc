"""The home's private socket: how a command reaches the service that runs on the home.

Role: one request a connection, JSON by line: the command and its arguments, then progress, then the answer or a typed
error.
Reach: asyncio, node.platform. Invariant: only the owner of the home can open the socket; a
command whose client has gone away is given up, as Ctrl-C gives up one that runs without a service.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import structlog

from node import platform
from node.commands import Progress, commands
from node.local import Node
from node.private_socket import LINE_BYTES_MAX
from sync_engine.errors import ReplicationError

log = structlog.get_logger()

CANCEL_S = 1.0


class Control:
    """The service's side."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._server: asyncio.Server | None = None
        self._work: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await platform.serve_private(self.node.home, self._answer, LINE_BYTES_MAX)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for work in tuple(self._work):
                await _give_up(work)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 2)
            platform.forget_private(self.node.home)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(progress: Mapping[str, Any]) -> None:
            writer.write(json.dumps({"progress": dict(progress)}).encode() + b"\n")

        try:
            request = json.loads(await reader.readline())
            work = asyncio.create_task(run(self.node, str(request["command"]), request["arguments"], tell))
            answer = {"answer": await self._while_asked(work, reader)}
        except asyncio.CancelledError:
            writer.close()
            return
        except ReplicationError as error:
            answer = {"error": {"code": error.code, "message": str(error), "hint": error.hint}}
        except Exception:
            log.exception("command failed")
            answer = {"error": {"code": "LocalFault", "message": "the service failed; its log says why", "hint": ""}}
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def _while_asked(self, work: asyncio.Task[Any], reader: asyncio.StreamReader) -> Any:
        """The work's answer. A client that goes away, by Ctrl-C or otherwise, has given it up."""
        self._work.add(work)
        gone = asyncio.create_task(reader.read(1))  # a client says nothing more
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            await _give_up(work)
            self._work.discard(work)
        return work.result()


async def _give_up(work: asyncio.Task[Any]) -> None:
    """End a command where it can be ended; one that is done is left as it is."""
    while not work.done():
        work.cancel()  # again and again: wait_for of Python 3.11 may lose one cancellation
        await asyncio.wait({work}, timeout=CANCEL_S)


async def run(node: Node, name: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
    """One command on an open node that a service runs on."""
    return await commands()[name](node, {**arguments, "running": True}, progress)

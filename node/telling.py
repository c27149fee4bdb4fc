"""What one session tells beside batches: certificates, and statements that nodes have signed.

Role: keep what the peer passes on; send what it lacks.
Reach: node.local, node.storage.statements, sync_engine. The shell has no opinions: what to send the exchange says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import structlog

from conflict.values import Epoch, UnitPath
from node.local import Node
from node.storage.certificates import keep_path
from node.storage.statements import KEPT_AT_ONCE, for_link, keep_all
from sync_engine.errors import BadCertificate, RemoteFault
from sync_engine.exchange import Exchange
from sync_engine.frames import Frame, Statement, Statements
from sync_engine.limits import STATEMENTS_MAX
from sync_engine.statements import lives_of

log = structlog.get_logger()

FRAME_BYTES = 512 * 1024
"""A frame is full with so many bytes of statements."""

Life = tuple[UnitPath, Epoch]


async def keep_certificates(node: Node, peer: UnitPath, paths: tuple[tuple[bytes, ...], ...]) -> None:
    for path in paths:
        try:
            await node.database.write(keep_path, path, node.context.tree_id)
        except (BadCertificate, RemoteFault) as fault:
            log.warning("certificate refused", peer=peer, reason=str(fault))


async def keep_statements(node: Node, statements: tuple[Statement, ...]) -> None:
    """Verify and keep; a few in a transaction, so that others may write between."""
    for at in range(0, len(statements), KEPT_AT_ONCE):
        await node.database.write(keep_all, node.context, statements[at : at + KEPT_AT_ONCE])


async def send_statements(
    node: Node,
    child: UnitPath,
    exchange: Exchange,
    certify: Callable[[set[Life]], Awaitable[None]],
    send: Callable[[Frame], Awaitable[None]],
) -> None:
    """What is known here of the scopes of which the peer knows something else; certificates go first."""
    known = await node.database.read(for_link, child, exchange.telling.untold)
    lives = {life for each in known for life in lives_of(each.said)}
    await certify({life for life in lives if not exchange.knows_origin(*life)})
    for some in _in_frames([each.statement for each in known]):
        await send(Statements(some))


def _in_frames(statements: list[Statement]) -> Iterator[tuple[Statement, ...]]:
    some: list[Statement] = []
    for each in statements:
        if some and (len(some) == STATEMENTS_MAX or sum(len(one.body) for one in some) + len(each.body) > FRAME_BYTES):
            yield tuple(some)
            some = []
        some.append(each)
    if some:
        yield tuple(some)

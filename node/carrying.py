"""``export`` and ``import``: sessions with a neighbour that is reached by hand alone.

Role: run the session that a bundle is one side of, and write the other side down to be carried back.
Reach: node.session, node.desk for the files, node.renewal, node.storage.carried. Source: docs/decisions/0034.
Invariant: what comes is verified, stored and merged by the same session that a line has; nothing counts as delivered
before the other side's receipt has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import structlog
from sqlalchemy import Connection

from conflict.values import Epoch, Head, UnitPath
from node import keys as key_files
from node import renewal
from node.carry_key import own_key, publish_key
from node.desk import Desk
from node.local import Node
from node.session import Session
from node.storage import carried
from node.storage.certificates import check_not_replaced, keep_path, path_of
from node.storage.certifications import last_answer
from node.storage.revocations import check_not_revoked
from node.storage.statements import keep_all
from node.summary import Summary
from sync_engine.bundle import NOBODY, BundleHeader, is_neighbour, sender_of
from sync_engine.errors import BadInput, Cloned, LimitExceeded, NotCertifiedYet, RemoteFault, Revoked
from sync_engine.frames import Chain, Done, Frame, HeadsFrame, Hello, Receipt, Refusal, Want, decode, encode, is_batch
from sync_engine.names import parent_of
from sync_engine.receipts import parse

log = structlog.get_logger()

DAY_MS = 24 * 3600 * 1000
GOOD_FOR_DAYS = 90
"""How long a bundle may be on its way. What is in it is safe at any age; an old one is refused so that nobody takes it
for news."""

Tell = Callable[[Summary], None]


class NotANeighbour(BadInput):
    """Bundles go to the parent and to children alone."""

    default_hint = "'dongbo units' lists the units below; the parent is told by 'dongbo status'"


class Written(Protocol):
    """A bundle, or a part of one, whose every byte has been proven to be its sender's."""

    @property
    def header(self) -> BundleHeader: ...

    @property
    def parts(self) -> int: ...

    def frames(self) -> Iterator[bytes]: ...


T = TypeVar("T", bound=Written)


@dataclass(slots=True)
class Exported:
    """A bundle for ``unit``: its files, and how many batches are in it."""

    unit: UnitPath
    files: list[Path]
    size: int
    number: int
    batches: int


@dataclass(slots=True)
class Imported:
    """What came of one neighbour's bundles, and the answer. ``is_news``: they tell what it says last."""

    sender: UnitPath
    summary: Summary
    answer: Exported
    is_news: bool
    missing: list[str] = field(default_factory=list)
    """Parts that are not here, in words."""


# --- export ----------------------------------------------------------------------------------------------------------


async def export(node: Node, to: UnitPath, desk: Desk, tell: Tell) -> Exported:
    """Write one bundle with all that a neighbour has not signed for. Raises NotANeighbour, NoCarryKeyOf, DiskFull, or a
    fault of what is stored here."""
    if not is_neighbour(node.context.unit, to):
        raise NotANeighbour(f"{to} is neither the parent nor a child of {node.context.unit}")
    said = last_words(await node.database.read(carried.named_heads, to, link_of(node.context.unit, to)))
    return (await exchange(node, to, said, await header_for(node, to), desk, NOBODY, tell))[1]


def link_of(unit: UnitPath, other: UnitPath) -> UnitPath:
    """Whose link goes between two neighbours: the child's."""
    return unit if parent_of(unit) == other else other


async def header_for(node: Node, to: UnitPath) -> BundleHeader:
    """What stands before the frames, with what a child asks for, or is granted, in the way of certificates."""
    await renewal.certify_root_if_due(node)
    await publish_key(node)
    header = await node.database.write(next_header, node, to)
    header = replace(header, encryption=await node.database.read(own_key, node.context))
    if parent_of(node.context.unit) == to and renewal.is_due(node, datetime.now(UTC)):
        return replace(header, renew_request=await renewal.request_of(node))
    return header


def next_header(connection: Connection, node: Node, to: UnitPath) -> BundleHeader:
    """The number is given once. A child that asked for a certificate gets its answer again until it is heard under
    it."""
    context, now_ms = node.context, node.context.now_ms()
    heard, answer = carried.heard_epoch(connection, to), last_answer(connection, to)
    return BundleHeader(
        tree_id=context.tree_id,
        sender=context.unit,
        epoch=context.speaks_as[0],
        recipient=to,
        heard=heard,
        number=carried.next_number(connection, to),
        part=1,
        time_ms=now_ms,
        expires_ms=now_ms + GOOD_FOR_DAYS * DAY_MS,
        path=path_of(connection, context.unit, context.speaks_as[0]) or node.keys.node_path,
        renewal=b"" if answer is None or answer[0] == heard else answer[1],
    )


async def exchange(
    node: Node, peer: UnitPath, said: Iterable[bytes], header: BundleHeader, desk: Desk, answers: Epoch, tell: Tell
) -> tuple[Summary, Exported]:
    """One session: what ``said`` gives comes in, what goes out stands in the bundle that is written. ``answers``: the
    life of this node that the peer had heard of when it said so."""
    child = link_of(node.context.unit, peer)
    writer = await desk.begin(node, header, child)
    try:
        link = _HandLink(said, writer.frame, desk.work)
        session = Session(node, link, child=child, peer=peer, progress=tell, answers=answers)
        summary = await session.run()
        files = await writer.finish()
    except BaseException:
        writer.drop()
        raise
    await node.database.write(carried.note_written, node.context, peer)
    return summary, Exported(peer, files, writer.size, header.number, summary.sent_batches)


class _HandLink:
    """A session's link: frames that were carried here, and a bundle that will be. ``work`` runs what is slow."""

    def __init__(
        self,
        said: Iterable[bytes],
        send: Callable[[bytes], Awaitable[None]],
        work: Callable[..., Awaitable[bytes | None]],
    ) -> None:
        self._said, self._send, self._work = iter(said), send, work
        self._after = asyncio.Event()

    async def send(self, data: bytes) -> None:
        await self._send(data)

    async def receive(self) -> bytes | None:
        data = await self._work(next, self._said, None)
        if data is None:
            await self._after.wait()  # nothing more comes; the session ends when it has written all
        return data


# --- import ----------------------------------------------------------------------------------------------------------


async def take_in(node: Node, bundles: Sequence[Written], desk: Desk, tell: Tell) -> Imported:
    """Take in what one neighbour has sent, whatever comes first, twice or never, and write the answer. Raises Revoked
    or Replaced for a sender whose key has ended, or a fault of what is stored here."""
    sender = bundles[0].header.sender
    for each in bundles:
        await _meet(node, each.header)
    newest = await node.database.read(carried.newest, [each.header for each in bundles])
    if newest is not None:
        await _certificates(node, newest)
    while True:
        waiting = _waiting(node)
        header = await header_for(node, sender)
        summary, answer = await exchange_all(node, bundles, newest, header, desk, tell)
        if _waiting(node) == waiting:
            break
        for path in answer.files:  # a new life began meanwhile, and the answer does not ask for its certificate
            path.unlink()
    return Imported(sender, summary, answer, newest is not None, missing_parts(bundles))


async def exchange_all(
    node: Node,
    bundles: Sequence[Written],
    newest: BundleHeader | None,
    header: BundleHeader,
    desk: Desk,
    tell: Tell,
) -> tuple[Summary, Exported]:
    """One session with all that one neighbour has sent, of which ``newest`` tells what it says last, if any does."""
    sender = header.recipient
    words = parts_of(bundles, newest)
    heads = await node.database.read(carried.named_heads, sender, link_of(node.context.unit, sender))
    answers = NOBODY if newest is None else newest.heard
    done = await exchange(node, sender, _said(bundles, words, heads), header, desk, answers, tell)
    if newest is not None:
        await node.database.write(carried.note_heard, node.context, newest)
    return done


def _waiting(node: Node) -> Epoch | None:
    """The life that waits for its certificate."""
    waiting = key_files.pending(node.home)
    return None if waiting is None else waiting.epoch


async def _meet(node: Node, header: BundleHeader) -> None:
    """Who wrote it, as a call is looked at: the same keys are refused. Raises Revoked, Replaced or BadCertificate."""
    certified = sender_of(header, node.context.tree_id)
    await node.database.read(check_not_revoked, header.sender, header.epoch)
    await node.database.read(check_not_replaced, header.sender, header.epoch)
    if parent_of(header.sender) == node.context.unit:
        await node.database.write(renewal.meet, node.context, node.keys, certified)
    else:
        await node.database.write(keep_path, certified.path, node.context.tree_id)
    if header.encryption is not None:
        await node.database.write(keep_all, node.context, [header.encryption])


async def _certificates(node: Node, header: BundleHeader) -> None:
    """Certify a child that asks; go on under what the parent has granted. What cannot be now is asked again with the
    next bundle."""
    if header.renewal and header.sender == parent_of(node.context.unit):
        try:
            await renewal.take_answer(node, header.renewal)
        except RemoteFault as fault:
            log.warning("certificate not taken", peer=header.sender, reason=str(fault))
    if header.renew_request and parent_of(header.sender) == node.context.unit:
        try:
            await renewal.answer(node, sender_of(header, node.context.tree_id), header.renew_request)
        except NotCertifiedYet as fault:
            log.warning("certificate waits", unit=header.sender, reason=str(fault))
        except (Cloned, Revoked):
            raise
        except RemoteFault as fault:
            log.warning("certificate refused", unit=header.sender, reason=str(fault))


# --- what is said ----------------------------------------------------------------------------------------------------

WORDS = Hello | HeadsFrame | Want | Chain | Receipt | Refusal | Done
"""What a sender says of itself, which its newest bundle alone tells; all else proves itself."""

WORDS_BYTES_MAX = 64 * 1024 * 1024
"""They are held in memory until what the files hold has been taken in."""


def last_words(heads: Sequence[Head]) -> list[bytes]:
    """What stands for a neighbour that is not heard: what its last receipt named."""
    return [encode(HeadsFrame(tuple(heads))), encode(Done())]


def _said(bundles: Sequence[Written], words: Sequence[Written], heads: Sequence[Head]) -> Iterator[bytes]:
    """What comes in: what the sender says of itself, then what every file holds, in the order in which it was written.
    Without ``words``, the parts of the bundle that is news, its last receipt speaks. Raises LimitExceeded."""
    before: list[Frame] = [HeadsFrame(tuple(heads))] if not words else []
    after: dict[bytes, Frame] = {}
    size = 0
    for place, part in enumerate(sorted(words, key=lambda each: each.header.part)):
        for data in part.frames():
            match None if is_batch(data) else decode(data):
                case Receipt() | Refusal() as frame:
                    size += 0 if data in after else len(data)
                    after[data] = frame
                case Hello() | HeadsFrame() | Want() | Chain() as frame if place == 0:
                    size += len(data)
                    before.append(frame)
            if size > WORDS_BYTES_MAX:
                raise LimitExceeded("a bundle says more of its sender than it may")
    receipt = next((each for each in after.values() if isinstance(each, Receipt)), None)
    for said in before:
        yield encode(_at_its_end(said, receipt) if receipt and isinstance(said, HeadsFrame) else said)
    for bundle in sorted(bundles, key=lambda each: (each.header.number, each.header.part)):
        for data in bundle.frames():
            if is_batch(data) or not isinstance(decode(data), WORDS):
                yield data
    yield from after
    yield encode(Done())


def _at_its_end(named: HeadsFrame, receipt: Receipt) -> HeadsFrame:
    """What the sender held when its bundle was whole: of the scopes that its receipt names, what that says. At the
    beginning it lacked what it was about to take in, which would all be carried to it once more."""
    body = parse(receipt)
    rest = (head for head in named.heads if head.stream.scope not in body.scopes)
    return replace(named, heads=tuple(sorted((*rest, *body.heads))))


def parts_of(bundles: Sequence[T], newest: BundleHeader | None) -> list[T]:
    """The files of the bundle that is news. A life counts anew where its database was restored."""
    return [each for each in bundles if newest is not None and _bundle_of(each) == (newest.epoch, newest.number)]


def missing_parts(bundles: Sequence[Written]) -> list[str]:
    """Which parts are not here, of each bundle of which some are."""
    found: dict[tuple[Epoch, int], set[int]] = {}
    parts: dict[tuple[Epoch, int], int] = {}
    for each in bundles:
        found.setdefault(_bundle_of(each), set()).add(each.header.part)
        parts[_bundle_of(each)] = each.parts
    return [
        f"{one[1]}: {', '.join(str(part) for part in range(1, parts[one] + 1) if part not in here)}"
        for one, here in sorted(found.items(), key=lambda each: each[0][::-1])
        if len(here) < parts[one]
    ]


def _bundle_of(part: Written) -> tuple[Epoch, int]:
    """Which of its sender's bundles a file belongs to."""
    return part.header.epoch, part.header.number

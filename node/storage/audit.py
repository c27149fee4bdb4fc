"""The audit chain in the database: one record for each administrative act, in the transaction of that act.

Role: note, read, prove; the head for heartbeats.
Reach: storage tables, sync_engine.audit. Source: decision 0028. Invariant: records are only ever added, and none holds
a value of a member's record or a key by which one is found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection

from node.storage.context import Context
from node.storage.engine import execute
from node.storage.meta import drop_meta, get_meta, set_meta
from sync_engine.audit import (
    DONE,
    NOTHING_BEFORE,
    SERVICE,
    Act,
    Anchor,
    Link,
    Record,
    Walk,
    head_to_wire,
    link,
)

P = ParamSpec("P")
R = TypeVar("R")

Subject: TypeAlias = Mapping[str, str | int | bool]

WORD_CHARS_MAX = 200
CONFIG_HASH = "config_sha256"

_actor: ContextVar[str] = ContextVar("actor", default=SERVICE)


@contextmanager
def acting(by: str) -> Iterator[None]:
    """Who does what is noted inside, in this task and what it awaits: the person whose command it is. Every function
    on the way to a note would carry the name for nothing else."""
    token = _actor.set(by or SERVICE)
    try:
        yield
    finally:
        _actor.reset(token)


def note(connection: Connection, context: Context, act: Act, subject: Subject = {}, *, outcome: str = DONE) -> None:  # noqa: B006 - read only
    """Add a record. In the act's own transaction, so that there is never one without the other."""
    no, before = _end(connection)
    words = {key: value[:WORD_CHARS_MAX] if isinstance(value, str) else value for key, value in subject.items()}
    text = json.dumps(words, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    record = Record(no + 1, context.now_ms(), act.value, text, _actor.get()[:WORD_CHARS_MAX], outcome)
    execute(
        connection,
        "INSERT INTO _audit (no, time, act, subject, who, outcome, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (record.no, record.time_ms, record.act, record.subject, record.by, outcome, link(before, record)),
    )


def noted(
    work: Callable[Concatenate[Connection, Context, P], R],
    act: Act | Callable[[R], Act],
    subject: Subject | Callable[[R], Subject],
) -> Callable[Concatenate[Connection, Context, P], R]:
    """``work`` with a note of what it came to, both in one transaction."""

    def both(connection: Connection, context: Context, /, *args: P.args, **more: P.kwargs) -> R:
        came_to = work(connection, context, *args, **more)
        words = subject(came_to) if callable(subject) else subject
        note(connection, context, act if isinstance(act, Act) else act(came_to), words)
        return came_to

    return both


def note_config(connection: Connection, context: Context, digest: str) -> None:
    """Note that the settings are not those of the last start; the first start has none to compare with."""
    before = get_meta(connection, CONFIG_HASH)
    if before == digest:
        return
    set_meta(connection, CONFIG_HASH, digest)
    if before is not None:
        note(connection, context, Act.CONFIG, {"was": before[:16], "is": digest[:16]})


def note_restored(connection: Connection, context: Context, mark: str) -> None:
    """Note that this database came out of a backup, and take its ``mark`` away."""
    note(connection, context, Act.RESTORE, {"made_at_ms": get_meta(connection, mark) or ""})
    drop_meta(connection, mark)


def decided(came_to: Mapping[str, Any]) -> Subject:
    """What a person's decision was about: its number leads to the rest, for those who may see it."""
    return {key: came_to[key] for key in ("number", "table", "unit")}


# --- reading ---


def _end(connection: Connection) -> tuple[int, bytes]:
    found = execute(connection, "SELECT no, hash FROM _audit ORDER BY no DESC LIMIT 1").one_or_none()
    return (0, NOTHING_BEFORE) if found is None else (int(found[0]), bytes(found[1]))


def audit_head(connection: Connection) -> bytes:
    """The chain's end, as heartbeats carry it; empty where nothing is recorded."""
    no, digest = _end(connection)
    return head_to_wire(no, digest) if no else b""


_COLUMNS = "no, time, act, subject, who, outcome, hash"


def _links(rows: Iterable[Any]) -> Iterator[Link]:
    for no, time_ms, act, subject, by, outcome, digest in rows:
        yield Link(Record(no, time_ms, act, subject, by, outcome), bytes(digest))


def recorded(connection: Connection, since_ms: int | None, limit: int | None) -> list[Link]:
    """Oldest first: all since a moment, or the last ``limit``."""
    rows = execute(
        connection,
        f"SELECT {_COLUMNS} FROM _audit WHERE time >= ? ORDER BY no DESC LIMIT ?",
        (since_ms or 0, -1 if limit is None else limit),
    ).all()
    return list(_links(reversed(rows)))


def last_time_of(connection: Connection, act: Act) -> int | None:
    """When something was last done here; None for never."""
    sql = "SELECT max(time) FROM _audit WHERE act = ? AND outcome = ?"
    return execute(connection, sql, (act.value, DONE)).scalar()


def proven(connection: Connection, anchors: Iterable[Anchor]) -> Walk:
    """The whole chain, proven against itself and against what was signed of it."""
    walk = Walk(anchors)
    for each in _links(execute(connection, f"SELECT {_COLUMNS} FROM _audit ORDER BY no")):
        walk.add(each)
    return walk

"""The node's own tables. All begin with ``_``; the registry's tables are made in ``tables``.

Role: definitions with their reasons.
Reach: SQLAlchemy. Source: design, 5 and 8. Invariant: a write is found in exactly one place: in ``_write`` if its
register has entries there, else in the row's insert (``_row``: one dot and one time for all fields, the values in the
real table).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA_VERSION = 1

metadata = MetaData()


def _keyed(name: str, *columns: Column[object]) -> Table:
    """A table that lives in its primary key alone."""
    return Table(name, metadata, *columns, sqlite_with_rowid=False)


meta = _keyed("_meta", Column("key", Text, primary_key=True), Column("value", Text))

scope = Table("_scope", metadata, Column("no", Integer, primary_key=True), Column("name", Text, unique=True))

stream = Table(
    "_stream",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("held_seq", BigInteger, nullable=False, server_default="0"),
    Column("held_hash", LargeBinary),
    Column("applied_seq", BigInteger, nullable=False, server_default="0"),
    Column("applied_hash", LargeBinary),
    Column("state", Text, nullable=False, server_default="open"),  # open | frozen (a fork) | refused (broke a rule)
    Column("reason", Text),
    UniqueConstraint("origin", "epoch", "scope"),
)

# What each stream's applied head had seen: `seen_delta` folded. One row per pair, so years cost nothing per batch.
seen = _keyed(
    "_seen",
    Column("stream", Integer, primary_key=True),
    Column("of", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

batch = Table(
    "_batch",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("stream", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("entries", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("registry", Integer, nullable=False),
    Column("state", Text, nullable=False),  # applied | waiting | moved: said again since, it fills its place
    Column("settles", BigInteger),  # it decides about the braked batches of its stream from this number on
    Column("again", Integer, nullable=False, server_default="0"),  # it may repeat a former life of its origin
    Column("applied_ms", BigInteger),  # when it was merged, by the clock here; null while it waits
    Column("data", LargeBinary, nullable=False),  # as received: never re-encoded
    Index("_batch_place", "stream", "seq"),
    sqlite_autoincrement=True,
)
Index("_batch_waiting", batch.c.stream, batch.c.seq, sqlite_where=text("state = 'waiting'"))

Index("_batch_settles", batch.c.stream, batch.c.seq, sqlite_where=text("settles IS NOT NULL"))

Index("_batch_again", batch.c.stream, sqlite_where=text("again = 1"))

# What has been said again in a later life of its origin, by its former name; `batch` is the one that says it now.
repeat = _keyed(
    "_repeat",
    Column("hash", LargeBinary, primary_key=True),
    Column("stream", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("prev", LargeBinary, nullable=False),
    Column("batch", Integer, nullable=False),
)
Index("_repeat_place", repeat.c.stream, repeat.c.seq)

# Batches of a forked stream's other branch: kept for their origin, who alone can say them again.
stray = _keyed(
    "_stray",
    Column("hash", LargeBinary, primary_key=True),
    Column("stream", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# Sealings that changed unusually much: their streams end here for all peers until a person has decided.
brake = Table(
    "_brake",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("stream", Integer, nullable=False),
    Column("from_seq", BigInteger, nullable=False),
    Column("changes", LargeBinary, nullable=False),  # [(table, register, rows, of)]
    Column("running", Integer, nullable=False),  # 1 till all that was pending then has been sealed
    Column("state", Text, nullable=False),  # pulled | undoing | released | undone
    Column("noted_ms", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
Index("_brake_open", brake.c.stream, unique=True, sqlite_where=text("state IN ('pulled', 'undoing')"))

row = _keyed(
    "_row",
    Column("scope", Integer, primary_key=True),
    Column("tbl", Integer, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("identity", LargeBinary, primary_key=True),
    Column("batch", Integer, nullable=False),  # the insert: base of every register without writes of its own
    Column("time", BigInteger, nullable=False),
    Column("alive_batch", Integer),  # last write of `alive`; null: the insert's
    Column("alive_time", BigInteger),
    Column("alive", Integer, nullable=False, server_default="1"),
    Column("born", BigInteger),  # oldest insert's time; null: this insert's
    Column("shown", Integer, nullable=False, server_default="1"),
    Column("contested", Integer, nullable=False, server_default="0"),  # not plain: merging must look here
    Column("hidden", LargeBinary),  # base values of a row the table does not show
    Column("inserts", LargeBinary),  # earlier inserts of it, by batch; null: there was one
)
Index("_row_contested", row.c.scope, row.c.tbl, row.c.id, sqlite_where=text("contested = 1"))

write = _keyed(
    "_write",
    Column("scope", Integer, primary_key=True),
    Column("tbl", Integer, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("identity", LargeBinary, primary_key=True),
    Column("register", Text, primary_key=True),
    Column("element", Text, primary_key=True),
    Column("batch", Integer, primary_key=True),
    Column("time", BigInteger, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("held", Integer, nullable=False, server_default="0"),  # why it is not shown: conflict.values.Hold
    Column("covered", Integer, nullable=False, server_default="0"),  # a held write has seen it: shown meanwhile
)
Index("_write_held", write.c.scope, write.c.tbl, write.c.id, sqlite_where=text("held > 0"))

conflict = Table(
    "_conflict",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("scope", Integer, nullable=False),
    Column("tbl", Integer, nullable=False),
    Column("id", Text, nullable=False),
    Column("identity", LargeBinary, nullable=False),
    Column("field", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("state", Text, nullable=False),  # open | settled | overturned | overwritten | superseded
    Column("live", Integer, nullable=False),  # 1 while the register holds exactly these writes
    Column("writes", LargeBinary, nullable=False),
    Column("noted_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),  # since when no register holds these writes
    Column("decided", LargeBinary),  # what a person decided about it: (act, unit, batch, time, why, value)
)
Index("_conflict_number", conflict.c.number)
Index("_conflict_ended", conflict.c.ended_ms, sqlite_where=text("live = 0"))
Index("_conflict_live", conflict.c.scope, conflict.c.tbl, conflict.c.id, sqlite_where=text("live = 1"))

# Every kind and every code that a catalogue row has ever had here.
code_part = _keyed(
    "_code_part",
    Column("unit", Text, primary_key=True),
    Column("tbl", Integer, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, primary_key=True),
)

# What of them is known: what was known once stays known.
code = _keyed(
    "_code",
    Column("kind", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
)

certificate = _keyed(
    "_certificate",
    Column("unit", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("sha256", LargeBinary, nullable=False),
    Column("path", LargeBinary, nullable=False),
)

# Every node key whose certificate is here, in the order of their coming: one key is one unit's, under one epoch.
node_key = _keyed(
    "_node_key",
    Column("unit", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("no", Integer, nullable=False),
    Column("sha256", LargeBinary, nullable=False, unique=True),  # of the SubjectPublicKeyInfo
    Column("accepted", Integer, nullable=False),  # 0: no key before it, nor the parent, has signed for it
    Column("mine", Integer, nullable=False, server_default="0"),  # a life of this home
    Column("replaced", Integer, nullable=False, server_default="0"),  # this parent let another machine take its place
)

# Machines whose place another has taken: when a key of theirs called last. It was refused.
former_call = _keyed(
    "_former_call",
    Column("unit", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
)

# What this unit's CA was asked to certify for its children: one key may follow a key, and no second one.
certification = _keyed(
    "_certification",
    Column("unit", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("from_epoch", Text),  # under which the child called; null: with an invitation
    Column("invitation", LargeBinary),  # SHA-256 of its certificate
    Column("request", LargeBinary, nullable=False),
    Column("response", LargeBinary),  # null: it waits for the CA key
    Column("asked_ms", BigInteger, nullable=False),
)

peer = _keyed(
    "_peer",
    Column("unit", Text, primary_key=True),
    Column("last_ok_ms", BigInteger),
    Column("met_in", Text),
    Column("last_error", Text),
    Column("last_error_ms", BigInteger),
    Column("clock_skew_ms", BigInteger),
    Column("certificate", LargeBinary),
)

# What is carried by hand to and from a neighbour: the number and time of the last bundle written for it, how many of
# its batches no receipt names yet, and what is newest of that which came from it.
carried = _keyed(
    "_carried",
    Column("unit", Text, primary_key=True),
    Column("out_number", BigInteger, nullable=False, server_default="0"),
    Column("out_ms", BigInteger),
    Column("in_epoch", Text),
    Column("in_number", BigInteger, nullable=False, server_default="0"),
    Column("in_ms", BigInteger),
    Column("line_ms", BigInteger),
)

# Under which key a child that was enrolled by hand is written to before it has said so itself.
hand_key = _keyed(
    "_hand_key",
    Column("unit", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("kem", Text, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("noted_ms", BigInteger, nullable=False),
)

# What a peer's receipts name, by stream.
peer_head = _keyed(
    "_peer_head",
    Column("unit", Text, primary_key=True),
    Column("stream", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

fork = Table(
    "_fork",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("stream", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("first_header", LargeBinary, nullable=False),
    Column("first_signature", LargeBinary, nullable=False),
    Column("second_header", LargeBinary, nullable=False),
    Column("second_signature", LargeBinary, nullable=False),
    Column("noted_ms", BigInteger, nullable=False),
    UniqueConstraint("stream", "seq"),
)

invitation = _keyed(
    "_invitation",
    Column("certificate", LargeBinary, primary_key=True),  # SHA-256
    Column("unit", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("request", LargeBinary),  # SHA-256 of the request that spent it
    Column("response", LargeBinary),
)

# Invitations that let a unit with a node begin again on another machine.
recovery = _keyed("_recovery", Column("certificate", LargeBinary, primary_key=True))

set_aside = _keyed(
    "_set_aside",
    Column("unit", Text, primary_key=True),
    Column("tbl", Integer, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("noted_ms", BigInteger, nullable=False),
)

# Computed digests by scope, good for one state of applied heads and registry.
digest = _keyed(
    "_digest",
    Column("scope", Text, primary_key=True),
    Column("state", LargeBinary, nullable=False),
    Column("columns", LargeBinary, nullable=False),
)

# What was done here, by whom: a chain of hashes, only ever added to.
audit = Table(
    "_audit",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("act", Text, nullable=False),
    Column("subject", Text, nullable=False),  # JSON: units, tables, numbers, files; never what a record says
    Column("who", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# Of large scopes: the bucket hashes of each column, so that only buckets touched since are computed anew.
digest_buckets = _keyed(
    "_digest_buckets",
    Column("scope", Text, primary_key=True),
    Column("registry", LargeBinary, nullable=False),
    Column("heads", LargeBinary, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
)

# Stored batches whose bytes are not those that their origin signed, or are gone: asked for in every session.
damaged = _keyed(
    "_damaged",
    Column("hash", LargeBinary, primary_key=True),
    Column("stream", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("noted_ms", BigInteger, nullable=False),
)

# What nodes signed for all whom it concerns, as signed: heartbeats, handovers, revocations.
statement = Table(
    "_statement",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("id", LargeBinary, nullable=False, unique=True),  # SHA-256 of tag and body
    Column("tag", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("scope", Text, nullable=False),  # it travels like the batches of that scope
    Column("signer", Text, nullable=False),
    Column("time", BigInteger, nullable=False),  # the signer's clock: of two heartbeats the greater counts
    Column("came_ms", BigInteger, nullable=False),  # by the clock here
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Index("_statement_about", "unit", "tag", "epoch", "scope"),
    Index("_statement_scope", "scope"),
    Index("_statement_signer", "signer"),
    sqlite_autoincrement=True,
)

# Columns of batches that nobody has any more, by the word of the batch's origin.
lost = _keyed(
    "_lost",
    Column("batch", LargeBinary, primary_key=True),  # the hash that it was sealed with first
    Column("chunk", LargeBinary, primary_key=True),
    Column("unit", Text, primary_key=True),
)

# What neighbours have signed that they hold; per scope the newest counts, and one that no scope needs goes.
receipt = Table(
    "_receipt",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("signer", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("came_ms", BigInteger, nullable=False),  # by the clock here
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Index("_receipt_signer", "signer"),
    sqlite_autoincrement=True,
)

receipt_scope = _keyed(
    "_receipt_scope",
    Column("signer", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("receipt", Integer, nullable=False),
)

# What heartbeats name and what had not come with them: how long it has been lacking.
named = _keyed(
    "_named",
    Column("unit", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("since_ms", BigInteger, nullable=False),  # by the clock here
)

# Since when a unit is known to have a node: it should be heard of.
heard = _keyed("_heard", Column("unit", Text, primary_key=True), Column("first_ms", BigInteger, nullable=False))


def create_own_tables(connection: Connection) -> None:
    """Create what is missing; says nothing about the registry's tables."""
    metadata.create_all(connection)

"""The protocol's limits, each checked before memory is spent.

Role: numbers with their reasons.
Reach: nothing. Source: protocol, "Batch".
"""

ENTRIES_MAX = 5_000
"""Entries (one per row and edit time) in one batch."""

ENTRIES_SEALED = 2_000
"""Entries we put into one batch ourselves: applying it stays well under WRITE_MS_MAX on a small PC, and costs a
twentieth more on the wire than the largest batch would."""

BATCH_BYTES_MAX = 4 * 1024 * 1024
"""Compressed size of a whole batch."""

HEADER_BYTES_MAX = 1024 * 1024
PLAIN_BYTES_MAX = 32 * 1024 * 1024
"""Decompressed size of all chunks of a batch."""

PLAIN_BYTES_SEALED = 3 * 1024 * 1024
"""Where sealing ends a batch of long rows, whatever their number: one more row of ROW_BYTES_MAX that does not compress
still fits BATCH_BYTES_MAX."""

SET_BYTES_MAX = 4 * 1024 * 1024
"""Decompressed size of a column of sets: an element of one byte becomes an object of eight or more."""

ROW_BYTES_MAX = 1024 * 1024
"""A longer row stays local and is reported."""

SECTIONS_MAX = 64
COLUMNS_MAX = 512
COLUMNS_TOTAL_MAX = 8_192
UNDONE_MAX = 1_024
"""Registers that one settlement names."""

SEEN_MAX = 4_096
"""Entries of one ``seen_delta``: depth times epochs; a thousand restores would still fit."""

FRAME_BYTES_MAX = BATCH_BYTES_MAX + HEADER_BYTES_MAX + 64 * 1024
WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""zstd's window: what decompressing one chunk may hold besides its output."""

SCOPES_MAX = 50_000
HEADS_MAX = 100_000
"""Of one frame: a head has 50 bytes and more, so more of them do not fit; fewer bytes each are no heads."""

CERTIFICATES_MAX = 10_000
"""Of one message of heads or certificates."""

STATEMENT_BYTES_MAX = 256 * 1024
"""A revocation names the last head of each stream of a key: a province's thousand take a quarter of this."""

STATEMENTS_MAX = 200
"""Of one frame."""

STATEMENTS_SESSION_MAX = 100_000
"""Of one session: a heartbeat per unit and scope of a province's whole subtree, many times over. Each costs its
receiver a signature to prove."""

WRITE_MS_MAX = 200
"""No write transaction of ours is longer: a foreign client with a busy timeout of a second must never be refused."""

CLOCK_SKEW_MS_MAX = 5 * 60 * 1000
"""A clock this far from the parent's is said so, and nothing else follows: five minutes forgive a slow clock."""

PARTS_MAX = 10_000
"""Files of one bundle: a whole country's register in parts of a megabyte."""

"""What ``verify`` says: stored batches, rows, triggers, the database file, and what has been mended."""

from __future__ import annotations

ENGLISH = {
    "damaged.cause": "a batch that is stored here damaged, and asked for again",
}

"""What ``verify`` says: stored batches, rows, triggers, the database file, and what has been mended."""

from __future__ import annotations

ENGLISH = {
    "verify.ok": "Stored batches proven: {batches}. Each is as its origin sealed it, and none is missing.",
    "verify.withheld": "Chunks of columns that are not here because this level may not read them: {chunks}. Their"
    " signatures hold without them.",
    "verify.bad": "Stored batches that are not as they should be, {bad} of {batches}:",
    "verify.progress": "batches proven: {batches} of {of} ...",
    "verify.progress.rows": "scopes compared: {scopes} of {of} ...",
    "verify.rows.ok": "Rows compared with their batches: {rows}. Every table shows what its signed batches say.",
    "verify.rows.bad": "{scope}: rows of table {table} that are not what their signed batches say, {rows} in"
    " all: {what}.",
    "verify.rows.changed": "{count} changed ({fields})",
    "verify.rows.lost": "{count} missing",
    "verify.rows.added": "{count} that nobody entered",
    "verify.rows.hint": "Somebody or something wrote to the database past this program. 'dongbo verify --repair' puts"
    " the rows back and keeps what stands there now in a file. Edits made by ordinary programs are not touched.",
    "verify.unproven": "{scope}: rows could not be compared: {reason}.",
    "verify.capture.missing": "Table {table} is not watched: edits that programs make there go unnoticed and reach"
    " nobody. 'dongbo verify --repair' sets the watch again.",
    "verify.capture.altered": "Table {table} is not watched as it should be: its triggers have been altered."
    " 'dongbo verify --repair' sets the watch again.",
    "verify.capture.silenced": "Table {table} is not watched: its triggers have been told to be silent."
    " 'dongbo verify --repair' sets the watch again.",
    "verify.database": "The database file is damaged: {fault}",
    "verify.database.index": "Only indexes are damaged, no rows: 'dongbo verify --repair' makes them anew.",
    "verify.database.hint": "Rows may be lost. Stop the service and keep a copy of the file; then bring back the newest"
    " backup, or let 'dongbo recover --from-parent' build the database anew. Nothing that was sent is lost.",
    "verify.wanted": "Batch {seq} of {origin} ({scope}) is stored damaged. It is asked for again, and will come from:"
    " {peers}.",
    "verify.wanted.nobody": "Batch {seq} of {origin} ({scope}) is stored damaged, and no neighbour is known to hold it:"
    " look for it in a backup.",
    "verify.repaired.rows": "Rows put back: {rows}. What stood there before is kept in {file}, for you alone to read.",
    "verify.repaired.capture": "The watch is set again on: {tables}.",
    "verify.repaired.batch": "Fetched again, and whole: batch {seq} of {origin} ({scope}).",
    "verify.repaired.nothing": "There was nothing to repair.",
    "verify.repaired.parent": "The parent could not be asked: {error}",
    "verify.alarm": "{scope}: {peer} holds the same batches and other registers. One of the two is damaged: run 'dongbo"
    " verify' on both.",
    "status.alarm": "alarm",
    "look.damaged": "Stored batches that are damaged here and asked for again: {count}. 'dongbo verify' says which.",
    "damaged.cause": "a batch that is stored here damaged, and asked for again",
}

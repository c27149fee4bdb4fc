"""Every sentence the command line says, in one catalogue, so that Vietnamese can follow.

Role: keys to English. Errors carry their own sentences, because they are part of what went wrong.
"""

from __future__ import annotations

_ENGLISH = {
    "init.done": "{unit} ({name}) is the root of a new tree.",
    "init.next": "Next: 'dongbo run' here, and 'dongbo invite LABEL --name NAME' for each unit below.",
    "invite.done": "An invitation for {unit} ({name}), good once and until {until}:",
    "invite.next": "On that unit's machine: dongbo join TOKEN",
    "invite.written": "Written to {file}. Carry it to that unit's machine and run: dongbo join {file}",
    "join.done": "{unit} ({name}) has joined its tree.",
    "join.next": "Next: 'dongbo run' keeps it in step; 'dongbo status' shows how it stands.",
    "sync.done": "In step with {peer}: {sent} batches sent, {received} received, {rows} rows changed, {seconds} s.",
    "sync.same": "In step with {peer}: nothing had changed, {seconds} s.",
    "sync.conflicts": "{count} new conflicts: see 'dongbo conflicts'.",
    "sync.refused": "Left aside: {reason}",
    "sync.progress": "sent {sent_batches}, received {received_batches} batches ...",
    "verify.ok": "All {batches} stored batches are their origins' and unbroken.",
    "verify.bad": "{bad} of {batches} stored batches are not as they should be:",
    "verify.progress": "{batches} of {of} batches proven ...",
    "conflicts.none": "No conflicts.",
    "conflicts.more": "... and {count} older ones: 'dongbo conflicts --json' has them all.",
    "conflict.open": "open: waits for a person",
    "conflict.settled": "settled",
    "conflict.overturned": "overturned",
    "conflict.overwritten": "overwritten",
    "conflict.superseded": "superseded",
    "conflict.won": "won",
    "conflict.lost": "lost",
    "never": "never",
    "status.service": "service",
    "status.runs": "running",
    "status.rests": "not running ('dongbo run' starts it)",
    "status.records": "records",
    "status.parent": "parent",
    "status.root": "none: this is the root of the tree",
    "status.last": "last in step {at}",
    "status.to_send": "to send up",
    "status.nothing": "nothing: the parent has everything",
    "status.unsent": "{pending} edits not yet sealed, {batches} batches not yet with the parent",
    "status.look": "look here",
    "status.children": "Units below",
    "state.ok": "in step",
    "state.late": "late",
    "state.failing": "failing",
    "state.stale": "silent for a day",
    "state.never": "never met",
    "state.fenced": "stopped: needs recovery",
    "state.revoked": "revoked",
    "look.fenced": "This node has stopped: {reason}. Run 'dongbo recover'.",
    "look.conflicts": "{count} conflicts wait for a decision: 'dongbo conflicts --open'.",
    "look.held": "{count} values are held back from the tables.",
    "look.waiting": "{count} batches wait for: {causes}.",
    "look.left": "{stream} is {state}: {reason}.",
    "look.set_aside": "{table}/{key} of {unit} stays here and does not travel: {reason}.",
    "look.clock": "This machine's clock is {minutes} minutes off the parent's: set it.",
    "unit.has_node": "has a node",
    "unit.no_node": "no node yet",
    "unit.invited": "invited until {until}",
    "error": "dongbo: {message}",
    "hint": "        {hint}",
}


def say(key: str, **values: object) -> str:
    """A sentence with its values in place. Raises KeyError for one that does not exist."""
    return _ENGLISH[key].format(**values)

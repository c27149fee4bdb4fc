"""What is said of accidents and of a row's life: the brake, release, undo, history."""

from __future__ import annotations

ENGLISH = {
    "brake.pulled": "BRAKE {number}, {at}: {what}. Nothing of it has left this machine, nor what was edited after it."
    " If it was meant: 'dongbo release {number}'. If it was an accident: 'dongbo undo {number}'.",
    "brake.more": "BRAKE: {count} more of other units, such as {unit}. 'dongbo release' and 'dongbo undo' take --all.",
    "brake.undoing": "BRAKE {number}: taking it back was cut off. Run 'dongbo undo {number}' again.",
    "brake.deleted": "{rows} of {of} records of {unit} in {table} were deleted",
    "brake.changed": "{field} was changed in {rows} of {of} records of {unit} in {table}",
    "brake.holds": "BRAKE: an unusually large change has NOT been sent. See 'dongbo status'.",
    "release.done": "Released: what {scopes} held back goes out with the next sync.",
    "undo.done": "Changed back: {rows} records of {scopes}. Others will never see what it was meanwhile.",
    "undo.progress": "{rows} of {of} records changed back ...",
    "history.none": "Nothing was ever sealed here of {table} {key} of {unit}.",
    "history.insert": "entered",
    "history.edit": "changed",
    "history.delete": "deleted",
    "history.revive": "restored",
    "history.nothing": "nothing",
    "history.resolve": "settles conflict {number}",
    "history.overturn": "decides conflict {number} anew",
    "history.release": "lets in the value held under {number}",
    "history.refuse": "refuses the value held under {number}",
    "history.rename": "gives the second person an id of their own (conflict {number})",
    "history.withheld": "not for this level",
    "history.unproven": "NOT PROVEN: its signature does not fit",
    "history.last_editor": "(last edited by {person})",
    "history.waiting": "not yet in the table: waits",
    "history.damaged": "Batches not told, because they cannot be read: {count}. 'dongbo verify' says which.",
    "history.unknown": "Batches not told, because their registry version has not come: {count}.",
}

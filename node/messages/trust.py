"""What is said of keys and certificates: recover, rotate, revoke, approve."""

from __future__ import annotations

ENGLISH: dict[str, str] = {
    "invite.written.recover": "Written to {file}. On the machine that is to be that unit from now on: dongbo recover"
    " --from-parent {file} --home FOLDER",
    "invite.next.recover": "On the machine that is to be that unit from now on: dongbo recover --from-parent TOKEN"
    " --home FOLDER",
    # why a batch waits
    "trust.cause.second key": "a second key of {unit} that the first did not sign",
    "trust.cause.revoked": "nobody: {unit} signed it after its key was revoked",
    # what status says
    "look.key.second key": "SECOND KEY: a second key of {unit} has come that the first did not sign. What it signed"
    " waits, and changes nothing. Ask the operator of the unit above it where that key comes from.",
    "look.key.second key.mine": "SECOND KEY: somebody has certified another key in the name of this unit. What it"
    " signed waits, and changes nothing. Tell the operator of the unit above at once: its CA key may be stolen.",
    "look.key.revoked": "The key of {unit} was revoked: {reason}",
    "look.key.revoked.mine": "REVOKED: the unit above has ended this node's key: {reason}. Ask its operator.",
    "look.refused": "REFUSED by {parent}: nothing leaves this machine, for another one is this unit's node now, or went"
    " on from a copy of this one. What is entered here stays here. If the other is the right one, switch this one off;"
    " to keep this one: 'dongbo invite {label} --recover' there, then 'dongbo recover --from-parent' here.",
    "look.refused.revoked": "REVOKED: {parent} has ended this node's key: nothing leaves this machine, and what is"
    " entered here stays here. Only the operator of {parent} can let it back: 'dongbo invite {label} --recover' there,"
    " then 'dongbo recover --from-parent' here.",
    "look.key.former": "Former keys of {units} ended; the present ones go on.",
    "look.former_machine": "A former machine of {unit} called at {at} and was refused: another has taken its place. If"
    " it is the right one: dongbo invite {label} --recover. If it was stolen: dongbo revoke {unit} --old-keys --reason"
    " ...",
    "look.next_edit": "What was entered here after the former key had ended does not count at other units yet: it does"
    " as soon as one more record is entered or changed here, and has been sent.",
    "look.held_back": "Batches of {unit} that wait and change nothing, for the sake of its key: {batches}.",
    "look.new_life": "At {at} this machine went on from an older copy of itself, or beside one, and took a new key by"
    " itself. Nothing is to be done: what was lost here comes back from the units above and below, and what was entered"
    " here stays.",
    "look.not_met": "Since then ({at}) there was no call with {unit}. What only that unit has of what was lost here"
    " comes with it; if it will never call again, revoke it, or what waits for it waits for ever.",
    "look.not_met.parent": "Since then ({at}) there was no call to {unit}. What was lost here comes with the next one.",
    "look.new_key": "This node's new key is not certified yet: {why}",
    "look.new_key.asked": "it is asked for with the next call to the parent",
    "look.certificates": "{unit} asks for a new certificate: bring the CA key and run 'dongbo approve'.",
    "state.revoked": "revoked",
    # the commands
    "revoke.done": "The keys of {unit} have ended. What came from it until now stays valid.",
    "revoke.done.former": "Former keys of {unit} ended; the present one goes on.",
    "revoke.next": "To let it come back with new keys: dongbo invite {label} --recover",
    "approve.nothing": "Nothing waits for the CA key.",
    "approve.done": "{unit} is certified; its node fetches the certificate with its next call.",
    "recover.done": "{unit} ({name}) is back, with new keys. Its parent has recorded it.",
    "recover.synced": "Everything of it that its parent holds is here again.",
    "recover.next": "Next: 'dongbo run' keeps it in step; what units below it hold comes with their next calls.",
    "rotate.done": "{unit} has a new key. What was signed with the old one stays valid.",
    "rotate.waits": "It is not certified yet: {why}. The old certificate serves meanwhile.",
    "recover.here": "{unit} goes on with a new key.",
}

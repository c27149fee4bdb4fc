"""What is said of keys and certificates: recover, rotate, revoke, approve."""

from __future__ import annotations

ENGLISH: dict[str, str] = {
    "invite.next.recover": "On the machine that is to be that unit from now on: dongbo recover --from-parent TOKEN",
    "recover.done": "{unit} ({name}) is back, with new keys. Its parent has recorded it.",
    "recover.synced": "Everything of it that its parent holds is here again.",
    "rotate.done": "{unit} has a new key. What was signed with the old one stays valid.",
    "rotate.waits": "It is not certified yet: {why}. {hint} The old certificate serves meanwhile.",
    "recover.here": "{unit} goes on with a new key.",
}

"""Every sentence the command line says, in one catalogue, so that Vietnamese can follow.

Role: keys to English, a module for each part of the day. Errors carry their own sentences, because they are part of
what went wrong.
"""

from __future__ import annotations

import unicodedata

from node.messages import (
    accidents,
    at_rest,
    audit,
    bulk,
    by_hand,
    carrying,
    daily,
    demonstration,
    duplicates,
    journal,
    proof,
    registries,
    trust,
)

_PARTS = (
    *(daily, duplicates, journal, bulk, accidents, audit),
    *(registries, trust, carrying, by_hand, at_rest, proof, demonstration),
)
_ENGLISH: dict[str, str] = {key: sentence for part in _PARTS for key, sentence in part.ENGLISH.items()}


def plain(text: str) -> str:
    """Without what would steer the terminal: values, names of units and what a peer says are somebody else's text."""
    return "".join("\ufffd" if unicodedata.category(each) == "Cc" and each != "\n" else each for each in text)


def say(key: str, /, **values: object) -> str:
    """A sentence with its values in place, all of them plain. Raises KeyError for one that does not exist."""
    told = {name: plain(str(each)) if isinstance(each, str | Exception) else each for name, each in values.items()}
    return _ENGLISH[key].format(**told)

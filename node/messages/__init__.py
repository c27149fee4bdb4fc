"""Every sentence the command line says, in one catalogue, so that Vietnamese can follow.

Role: keys to English, a module for each part of the day. Errors carry their own sentences, because they are part of
what went wrong.
"""

from __future__ import annotations

from node.messages import accidents, at_rest, audit, bulk, daily, demonstration, duplicates, journal, registries, trust

_PARTS = (daily, duplicates, journal, bulk, accidents, audit, registries, trust, at_rest, demonstration)
_ENGLISH: dict[str, str] = {key: sentence for part in _PARTS for key, sentence in part.ENGLISH.items()}


def say(key: str, /, **values: object) -> str:
    """A sentence with its values in place. Raises KeyError for one that does not exist."""
    return _ENGLISH[key].format(**values)

"""The words in which fingerprints are read out."""

from __future__ import annotations

import unicodedata
from hashlib import sha256

from sync_engine.words import WORDS, words_of

PINNED = ("hổ", "cam", "áo", "đò", "rổ", "lính", "tôm", "gà")


def stripped(word: str) -> str:
    """As a terminal without diacritics shows it."""
    parts = unicodedata.normalize("NFD", word.replace("đ", "d"))
    return "".join(each for each in parts if not unicodedata.combining(each))


def test_each_byte_has_a_word_and_no_two_are_alike_without_diacritics() -> None:
    assert len({stripped(word) for word in WORDS}) == len(WORDS) == 256
    assert all(stripped(word).isascii() and stripped(word).isalpha() for word in WORDS)
    assert all(2 <= len(stripped(word)) <= 6 for word in WORDS)
    assert all(word == unicodedata.normalize("NFC", word) for word in WORDS)


def test_the_words_of_a_digest_stay_as_they_are() -> None:
    """Stretched, so that each try at other bytes with the same words takes as long as this."""
    assert words_of(bytes(32)) == PINNED
    assert words_of(sha256(b"request").digest()) != words_of(sha256(b"another").digest())


def test_the_list_stays_as_it_is() -> None:
    """Two versions of the software must say the same words."""
    digest = sha256(" ".join(WORDS).encode()).hexdigest()
    assert digest.startswith("a429628535592fcc")

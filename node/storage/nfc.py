"""Unicode's composed form (NFC), checked in SQL: a plain client's text is refused by the table itself.

Role: the two tables of characters the check needs, a cheap guard that nearly every text passes, and the exact scan
for the others.
Reach: unicodedata. Source: Unicode Standard Annex 15, section 9 ("quick check") and D117 (primary composites).
Invariant: the scan never refuses text that is NFC. The guard lets through decomposed text of scripts that are neither
Latin, Greek nor Cyrillic (Hangul jamo, Indic nukta, compatibility ideographs): looking for those in every text would
cost more than the insert itself, so sealing finds them.
"""

from __future__ import annotations

import unicodedata
from functools import cache

from node.storage.tables import literal

TABLES_SQL = (
    "CREATE TABLE IF NOT EXISTS _nfc_pair (pair TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _nfc_char (ch TEXT PRIMARY KEY, ccc INTEGER, stable INTEGER) WITHOUT ROWID",
)

_SCANNED = (range(0x80, 0xAC00), range(0xD7A4, 0xD800), range(0xE000, 0x20000), range(0x2F800, 0x2FA20))
"""Where Unicode has combining or unstable characters; Hangul syllables compose by arithmetic and are left out."""

_PIECE, _OVERLAP = 500, 30
"""Long text is scanned in pieces, since every step of an SQL recursion copies its row."""


@cache
def characters() -> tuple[tuple[str, int, int], ...]:
    """(character, canonical combining class, 1 if it may stand in NFC) for every one that is not plainly both."""
    found = []
    for span in _SCANNED:
        for point in span:
            char = chr(point)
            ccc = unicodedata.combining(char)
            stable = unicodedata.is_normalized("NFC", char)
            if ccc or not stable:
                found.append((char, ccc, int(stable)))
    return tuple(found)


@cache
def pairs() -> tuple[str, ...]:
    """Every starter and mark that do not stay as they are: they compose, or the mark belongs beneath its own marks."""
    firsts: set[str] = set()
    seconds: set[str] = set()
    for span in _SCANNED:
        for point in span:
            parts = unicodedata.decomposition(chr(point)).split()
            if len(parts) == 2 and not parts[0].startswith("<"):
                firsts |= {chr(int(parts[0], 16)), chr(point)}
                seconds.add(chr(int(parts[1], 16)))
    starters = sorted(
        char for char in firsts if unicodedata.is_normalized("NFC", char) and not unicodedata.combining(char)
    )
    return tuple(
        first + second
        for first in starters
        for second in sorted(seconds)
        if not unicodedata.is_normalized("NFC", first + second) and unicodedata.is_normalized("NFC", second)
    )


def fill_sql() -> list[str]:
    """The statements that fill both tables."""
    chars = ", ".join(f"({literal(char)}, {ccc}, {stable})" for char, ccc, stable in characters())
    return [
        "INSERT OR IGNORE INTO _nfc_pair VALUES " + ", ".join(f"({literal(pair)})" for pair in pairs()),
        f"INSERT OR IGNORE INTO _nfc_char VALUES {chars}",
    ]


def guard_sql(blob: str) -> str:
    """Whether bytes of UTF-8 may hold what needs the scan, or a NUL: true for almost no text.

    U+0300 to U+037F, all combining marks of Latin among them, are the characters led by CC and CD, bytes that stand
    nowhere else; E2 84 leads the Angstrom and Kelvin signs.
    """
    return f"instr({blob}, x'CC') OR instr({blob}, x'CD') OR instr({blob}, x'E284') OR instr({blob}, x'00')"


def first_bad_sql(texts: list[str]) -> str:
    """A subquery: the number (from 1) of the first of these SQL texts that is not NFC or holds a NUL, else NULL.

    Walks each text once, keeping the last starter and the class of the last mark: a mark is wrong if it may never
    stand in NFC, if it comes after one of a greater class, or if nothing of its class or greater stands between it
    and a starter it does not stay beside.
    """
    rows = ", ".join(f"({number}, {text})" for number, text in enumerate(texts, start=1))
    blob = "CAST(v AS BLOB)"
    return f"""(WITH RECURSIVE
  t(k, v) AS (VALUES {rows}),
  p(k, v, o) AS (
    SELECT k, v, 1 FROM t WHERE v IS NOT NULL AND ({guard_sql(blob)})
    UNION ALL SELECT k, v, o + {_PIECE - _OVERLAP} FROM p WHERE o + {_PIECE} <= length(v)),
  s(k, v, i, starter, ccc, bad) AS (
    SELECT k, substr(v, o, {_PIECE}), 1, '', 0, instr({blob}, x'00') FROM p
    UNION ALL SELECT s.k, s.v, s.i + 1,
      CASE WHEN coalesce(c.ccc, 0) = 0 THEN substr(s.v, s.i, 1) ELSE s.starter END,
      coalesce(c.ccc, 0),
      coalesce(NOT c.stable OR (c.ccc <> 0 AND c.ccc < s.ccc), 0)
        OR (s.ccc < coalesce(c.ccc, 0) OR s.ccc = 0)
          AND EXISTS (SELECT 1 FROM _nfc_pair WHERE pair = s.starter || substr(s.v, s.i, 1))
    FROM s LEFT JOIN _nfc_char c ON c.ch = substr(s.v, s.i, 1)
    WHERE s.i <= length(s.v) AND NOT s.bad)
SELECT min(k) FROM s WHERE bad)"""

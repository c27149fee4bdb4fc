"""Real administrative units, and the labels made from their names.

Role: read the units as they stood before July 2025 (the tree with districts); turn a name into a label.
Reach: sync_engine's names and errors, and the data file, read once and only when asked for.
Source: node/data/NOTICE.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import groupby
from operator import itemgetter

from sync_engine.errors import BadName

TYPE_WORDS = ("Thành phố", "Tỉnh", "Thị xã", "Thị trấn", "Đặc khu", "Huyện", "Quận", "Phường", "Xã")
"""The words that say what kind of unit a name is; in the data they come in either case (``Thị Trấn``)."""

LABEL_CHARS_MAX = 32

_TYPE = re.compile(rf"({'|'.join(TYPE_WORDS)})\s+(?=\S)", re.IGNORECASE)
_APOSTROPHES = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}]")
_NOT_IN_LABEL = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Commune:
    """A commune, ward or township: the lowest unit; it runs no node of its own."""

    code: str
    name: str
    label: str


@dataclass(frozen=True, slots=True)
class District:
    """A district, or a city or town below a province. Five island districts have no communes."""

    code: str
    name: str
    label: str
    communes: tuple[Commune, ...]


@dataclass(frozen=True, slots=True)
class Province:
    """A province, or a city directly under the centre."""

    code: str
    name: str
    label: str
    districts: tuple[District, ...]


def plain(text: str) -> str:
    """Lower case without tone and vowel marks, for addresses and look-ups: ``Đắk Lắk`` becomes ``dak lak``."""
    apart = unicodedata.normalize("NFD", text.lower().replace("đ", "d"))  # đ is a letter, not d and a mark
    return "".join(char for char in apart if not unicodedata.combining(char))


def slug(name: str) -> str:
    """A unit's label from its Vietnamese name, without the word for its type: ``Huyện Phú Vang`` gives ``phu-vang``.

    A bare number needs its type word (``Quận 1`` gives ``quan-1``). An apostrophe joins: ``Đắk R'Lấp`` is ``dak-rlap``.
    Raises BadName if nothing usable is left.
    """
    name = unicodedata.normalize("NFC", name).strip()
    bare = _TYPE.sub("", name, count=1) if _TYPE.match(name) else name
    return _label(name if bare.isdigit() else bare)


def full_slug(name: str) -> str:
    """Like ``slug``, but keeps the type word: ``Thị xã Kỳ Anh`` gives ``thi-xa-ky-anh``. Raises BadName."""
    return _label(name)


def provinces() -> tuple[Province, ...]:
    """All 63, in the order of their codes."""
    return _load()


def province(code_or_name: str) -> Province:
    """One province by code (``46``), name (``Thành phố Huế``, ``Huế``) or label (``hue``). Raises BadName."""
    wanted = plain(unicodedata.normalize("NFC", code_or_name)).strip()
    for unit in _load():
        if wanted in (unit.code, unit.label) or wanted == plain(unit.name) or _squeeze(wanted) == unit.label:
            return unit
    raise BadName(
        f"{code_or_name!r} is not a province", hint="give its code or name as before July 2025, such as 46 or Huế"
    )


def _squeeze(text: str) -> str:
    return _NOT_IN_LABEL.sub("-", _APOSTROPHES.sub("", plain(text))).strip("-")


def _label(name: str) -> str:
    label = _squeeze(name)[:LABEL_CHARS_MAX].rstrip("-")
    if not label:
        raise BadName(f"{name!r} gives no label", hint="give the unit a label of a-z, 0-9 and '-'")
    return label


def _labels(units: Sequence[tuple[str, str]]) -> list[str]:
    """Distinct labels for siblings given as (code, name).

    Where a city and a district share a name, both keep their type word, so that neither label depends on which came
    first. Communes whose names differ in their tones only (Sa Pa, Sa Pả) get their codes instead.
    """
    short = Counter(slug(name) for _, name in units)
    full = Counter(full_slug(name) for _, name in units)
    labels = []
    for code, name in units:
        label = slug(name)
        if short[label] > 1:
            label = full_slug(name)
            if full[label] > 1:
                label = f"{slug(name)[: LABEL_CHARS_MAX - len(code) - 1]}-{code}"
        labels.append(label)
    return labels


@lru_cache(maxsize=1)
def _load() -> tuple[Province, ...]:
    text = files("node").joinpath("data", "units_before_2025.tsv").read_text(encoding="utf-8")
    rows: list[list[str]] = []
    for line in text.splitlines()[1:]:
        row = line.split("\t")
        # A name is written where it first occurs; below that its code stands alone.
        row[1] = row[1] or rows[-1][1]
        row[3] = row[3] or rows[-1][3]
        rows.append(row)
    by_province = [(*key, list(group)) for key, group in groupby(rows, key=itemgetter(0, 1))]
    labels = _labels([(code, name) for code, name, _ in by_province])
    return tuple(
        Province(code, name, label, _districts(group))
        for (code, name, group), label in zip(by_province, labels, strict=True)
    )


def _districts(rows: list[list[str]]) -> tuple[District, ...]:
    by_district = [(*key, list(group)) for key, group in groupby(rows, key=itemgetter(2, 3))]
    labels = _labels([(code, name) for code, name, _ in by_district])
    return tuple(
        District(code, name, label, _communes(group))
        for (code, name, group), label in zip(by_district, labels, strict=True)
    )


def _communes(rows: list[list[str]]) -> tuple[Commune, ...]:
    units = [(row[4], row[5]) for row in rows if row[4]]
    return tuple(Commune(code, name, label) for (code, name), label in zip(units, _labels(units), strict=True))

"""The one canonical form of each field's values: what may be on the wire, and what people may write for it.

Role: ``normalise`` is lenient and takes what people and files write; ``check_column`` is strict and judges a whole
column of a peer's batch; ``to_sql`` and ``from_sql`` turn columns between wire and SQL form.
Reach: sync_engine.registry, errors; unicodedata, datetime and msgspec.
Invariant: whatever ``normalise`` returns, ``check_column`` accepts, and ``from_sql(to_sql(column))`` is the column.
Columns are judged as wholes because a batch has thousands of values and few distinct ones.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any

import msgspec

from conflict.values import Value
from sync_engine.errors import BadInput, Malformed
from sync_engine.registry import Field, FieldType

INT_MIN, INT_MAX = -(2**63), 2**63 - 1

_TEXTUAL = frozenset({FieldType.TEXT, FieldType.CODE, FieldType.ENUM, FieldType.DATE, FieldType.TIMESTAMP})
_TYPES: dict[FieldType, type] = {
    **dict.fromkeys(_TEXTUAL, str),
    FieldType.INT: int,
    FieldType.REAL: float,
    FieldType.BOOL: bool,
    FieldType.SET: list,
    FieldType.BYTES: bytes,
}
_COLUMN_TYPES: dict[FieldType, Any] = {
    **dict.fromkeys(_TEXTUAL, list[str | None]),
    FieldType.INT: list[int | None],
    FieldType.REAL: list[float | None],
    FieldType.BOOL: list[bool | None],
    FieldType.SET: list[list[str] | None],
    FieldType.BYTES: list[bytes | None],
}

# [0-9], not \d: other scripts have digits too.
_WHOLE_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PARTIAL_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?Z")
_WRITTEN_DATE = re.compile(r"(?:(?:([0-9]{1,2})[/.-])?([0-9]{1,2})[/.-])?([0-9]{4})")
_DIGITS = re.compile(r"[0-9]+")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_YES = frozenset({"1", "true", "yes", "x", "có", "đúng"})
_NO = frozenset({"0", "false", "no", "không", "sai"})
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?")


# -- what is right, value by value ------------------------------------------------------------------------------------


def _is_text(value: str) -> bool:
    # PostgreSQL cannot hold a NUL, so no node may.
    return "\0" not in value and unicodedata.is_normalized("NFC", value)


def is_date(text: str, *, partial: bool = False) -> bool:
    """Whether ``text`` is a date of the calendar as YYYY-MM-DD, or YYYY-MM or YYYY where ``partial``."""
    if not (_PARTIAL_DATE if partial else _WHOLE_DATE).fullmatch(text):
        return False
    try:
        date.fromisoformat(text + "0000-01-01"[len(text) :])
    except ValueError:
        return False
    return True


def is_timestamp(text: str) -> bool:
    """Whether ``text`` is a time in UTC as YYYY-MM-DDTHH:MM:SSZ, with or without three digits of a second."""
    if not _TIMESTAMP.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


# -- lenient: one value, as people and files write it -----------------------------------------------------------------


def normalise(field: Field, raw: object) -> Value:
    """The canonical value that ``raw`` means: a set as a sorted tuple, nothing as None.

    Takes what SQL holds and what files say: text in any normal form, dd/mm/yyyy, numbers as text, sets as JSON or
    separated by ';'. Empty text stays text in a text field and is nothing elsewhere. Raises BadInput saying what would
    be right, without repeating the value, which may be somebody's.
    """
    if raw is None or (raw == "" and field.type is not FieldType.TEXT):
        value: Value = None
    else:
        value = _NORMALISERS[field.type](field, raw)
    if field.required and value in (None, "", b""):
        raise _bad(field, "required")
    return value


def _bad(field: Field, right: str) -> BadInput:
    return BadInput(f"{field.name}: {right}")


def _text(field: Field, raw: object) -> str:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = str(raw)
    if not isinstance(raw, str):
        raise _bad(field, "must be text")
    if "\0" in raw or any("\ud800" <= char <= "\udfff" for char in raw):
        raise _bad(field, "must be text without NUL or half characters")
    return unicodedata.normalize("NFC", raw)


def _plain_text(field: Field, raw: object) -> str:
    text = _text(field, raw)
    if field.digits and not (len(text) == field.digits and _DIGITS.fullmatch(text)):
        raise _bad(field, f"must be {field.digits} digits")
    return text


def _int(field: Field, raw: object) -> int:
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    if isinstance(raw, str) and _WHOLE_NUMBER.fullmatch(raw):
        raw = int(raw)
    if not isinstance(raw, int) or isinstance(raw, bool) or not INT_MIN <= raw <= INT_MAX:
        raise _bad(field, "must be a whole number")
    if field.values and raw not in field.values:
        raise _bad(field, "must be one of " + ", ".join(map(str, field.values)))
    return raw


def _real(field: Field, raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise _bad(field, "must be a number")
    if isinstance(raw, str) and _DECIMAL_COMMA.fullmatch(raw):
        raw = raw.replace(",", ".")
    try:
        number = float(raw)
    except (ValueError, OverflowError):
        raise _bad(field, "must be a number") from None
    if not math.isfinite(number):
        raise _bad(field, "must be a finite number")
    return number + 0.0  # minus zero is zero: SQLite does not keep the difference


def _bool(field: Field, raw: object) -> bool:
    word = str(raw).strip().casefold() if isinstance(raw, str | int) else ""
    word = unicodedata.normalize("NFC", word)
    if word in _YES or word in _NO:
        return word in _YES
    raise _bad(field, "must be 1 or 0, yes or no")


def _date(field: Field, raw: object) -> str:
    text = raw.strip() if isinstance(raw, str) else str(raw) if isinstance(raw, int) else ""
    if written := _WRITTEN_DATE.fullmatch(text):
        text = "-".join(part.zfill(2) for part in reversed(written.groups()) if part)
    if is_date(text, partial=field.partial):
        return text
    shapes = "YYYY-MM-DD, YYYY-MM or YYYY" if field.partial else "YYYY-MM-DD"
    raise _bad(field, f"must be a date of the calendar: {shapes}, or the same as DD/MM/YYYY")


def _timestamp(field: Field, raw: object) -> str:
    try:
        moment = datetime.fromisoformat(raw.strip()) if isinstance(raw, str) and len(raw.strip()) > 10 else None
        if moment is not None:
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise _bad(field, "must be a time in UTC, YYYY-MM-DDTHH:MM:SSZ")
    precision = "milliseconds" if moment.microsecond >= 1000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _enum(field: Field, raw: object) -> str:
    text = _text(field, raw)
    if text not in field.values:
        meant = [str(value) for value in field.values if str(value).casefold() == text.casefold()]
        if len(meant) != 1:
            raise _bad(field, "must be one of " + ", ".join(map(str, field.values)))
        text = meant[0]
    return text


def _set(field: Field, raw: object) -> tuple[str, ...]:
    elements: object = raw
    if isinstance(raw, str):
        if raw.lstrip().startswith("["):
            try:
                elements = json.loads(raw)
            except (ValueError, RecursionError):
                raise _bad(field, "must be a JSON array of texts, or texts separated by ';'") from None
        else:
            elements = [part.strip() for part in raw.split(";") if part.strip()]
    if not isinstance(elements, list | tuple | set | frozenset) or not all(isinstance(one, str) for one in elements):
        raise _bad(field, "must be a set of texts")
    texts = {_text(field, one) for one in elements}
    if "" in texts:
        raise _bad(field, "must have no empty element")
    return tuple(sorted(texts))


def _bytes(field: Field, raw: object) -> bytes:
    if isinstance(raw, bytes | bytearray | memoryview):
        return bytes(raw)
    try:
        return bytes.fromhex(raw) if isinstance(raw, str) else _fail_bytes(field)
    except ValueError:
        return _fail_bytes(field)


def _fail_bytes(field: Field) -> bytes:
    raise _bad(field, "must be bytes, or their hexadecimal digits")


_NORMALISERS: dict[FieldType, Callable[[Field, object], Value]] = {
    FieldType.TEXT: _plain_text,
    FieldType.INT: _int,
    FieldType.REAL: _real,
    FieldType.BOOL: _bool,
    FieldType.DATE: _date,
    FieldType.TIMESTAMP: _timestamp,
    FieldType.ENUM: _enum,
    FieldType.SET: _set,
    FieldType.CODE: _text,
    FieldType.BYTES: _bytes,
}


# -- strict: a column of a batch --------------------------------------------------------------------------------------


DATES_KEPT = 100_000
"""Days found right are remembered, two centuries of them: a register names the same ones again and again."""
_WHOLE_SEEN: set[str] = set()
_PARTIAL_SEEN: set[str] = set()


def column_decoder_type(field: Field) -> Any:
    """What msgspec is told to decode a column's values as."""
    return _COLUMN_TYPES[field.type]


def check_column(field: Field, values: list[Any]) -> None:
    """Raises Malformed unless every value is None or in canonical wire form.

    Says nothing about what a field admits of that form: ``rule_breaks`` does. Elements of a union set's two columns are
    judged alike.
    """
    kinds = set(map(type, values))
    kinds.discard(type(None))
    if not kinds:
        return
    if kinds != {_TYPES[field.type]}:
        raise _malformed(field, "a value of another type")
    if field.type is FieldType.SET:
        _check_sets(field, [value for value in values if value is not None])
    elif field.type is FieldType.TEXT and not field.digits:
        _check_texts(field, [value for value in values if value is not None])
    elif field.type is FieldType.REAL:
        _check_reals(field, [value for value in values if value is not None])
    elif field.type is not FieldType.BYTES:
        distinct = set(values)
        distinct.discard(None)
        _check_distinct(field, distinct)


def rule_breaks(field: Field, values: list[Any]) -> list[int]:
    """The places of values that are well formed and break the field's rule: nothing where something is required, a
    value that is not among those listed, a number with other than so many digits. Such a value stops nobody: it is
    held."""
    if field.type is FieldType.SET or not (field.values or field.digits):
        return (
            [at for at, value in enumerate(values) if not value and value in (None, "", [], b"")]
            if field.required
            else []
        )
    distinct = set(values)
    if field.digits:
        wrong = {each for each in distinct if each is not None and not _is_number(each, field.digits)}
    else:
        wrong = distinct - {*field.values, None}
    wrong |= {None} if field.required and None in distinct else set()
    return [at for at, value in enumerate(values) if value in wrong] if wrong else []


def _is_number(text: str, digits: int) -> bool:
    return len(text) == digits and text.isascii() and text.isdecimal()


def _malformed(field: Field, what: str) -> Malformed:
    return Malformed(f"column {field.name} has {what}")


def _check_texts(field: Field, texts: Iterable[str]) -> None:
    # A line break between texts is a starter, so no two of them compose across it.
    joined = "\n".join(texts)
    if not _is_text(joined):
        raise _malformed(field, "text that is not NFC, or holds a NUL")


def _check_sets(field: Field, sets: list[list[str]]) -> None:
    elements = list(chain.from_iterable(sets))
    if set(map(type, elements)) - {str}:
        raise _malformed(field, "a set with an element that is not text")
    for one in sets:
        if len(one) > 1 and sorted(set(one)) != one:
            raise _malformed(field, "a set that is not sorted, or names an element twice")
    distinct = set(elements)
    if "" in distinct:
        raise _malformed(field, "a set with an empty element")
    _check_texts(field, distinct)


def _check_reals(field: Field, numbers: list[float]) -> None:
    # Not by distinct values: minus zero equals zero, and must not hide behind it.
    if not all(math.isfinite(one) and (one or math.copysign(1, one) > 0) for one in numbers):
        raise _malformed(field, "a number that is not finite, or minus zero")


def _check_distinct(field: Field, distinct: set[Any]) -> None:
    match field.type:
        case FieldType.INT:
            right = INT_MIN <= min(distinct) <= max(distinct) <= INT_MAX
        case FieldType.DATE:
            known = _PARTIAL_SEEN if field.partial else _WHOLE_SEEN
            fresh = distinct - known
            right = all(is_date(one, partial=field.partial) for one in fresh)
            if right and len(known) < DATES_KEPT:
                known |= fresh
        case FieldType.TIMESTAMP:
            right = all(map(is_timestamp, distinct))
        case FieldType.ENUM:
            right = _is_text("\n".join(distinct - set(field.values)))
        case FieldType.TEXT:
            right = _is_text("\n".join(distinct))
        case FieldType.CODE:
            right = "" not in distinct and _is_text("\n".join(distinct))
        case _:
            right = True
    if not right:
        raise _malformed(field, f"a value that is no {field.type} of this field")


# -- columns between wire and SQL -------------------------------------------------------------------------------------

_ENCODE_JSON = msgspec.json.Encoder().encode
_DECODE_SET = msgspec.json.Decoder(list[str]).decode
_BOOL_TO_SQL: dict[bool | None, int | None] = {None: None, False: 0, True: 1}
_SQL_TO_BOOL: dict[int | None, bool | None] = {None: None, 0: False, 1: True}


def set_to_sql(elements: Iterable[str]) -> str:
    """A set's SQL form. ``elements`` are sorted and distinct already; columns hold NULL for an empty set."""
    return _ENCODE_JSON(list(elements)).decode()


def to_sql(field: Field, values: list[Any]) -> list[Any]:
    """A column of canonical wire values in SQL form; the same list where the forms are one."""
    if field.type is FieldType.BOOL:
        return list(map(_BOOL_TO_SQL.__getitem__, values))
    if field.type is FieldType.SET:
        return [set_to_sql(value) if value else None for value in values]
    return values


def from_sql(field: Field, values: list[Any]) -> list[Any]:
    """A column as SQL holds it in wire form. Raises BadInput if a value is not in SQL form.

    What capture let through is in SQL form; ``check_column`` tells whether it is canonical too.
    """
    try:
        if field.type is FieldType.BOOL:
            return list(map(_SQL_TO_BOOL.__getitem__, values))
        if field.type is FieldType.SET:
            return [(_DECODE_SET(value) or None) if value is not None else None for value in values]
    except (KeyError, TypeError, msgspec.DecodeError):
        raise BadInput(f"{field.name}: the table holds a value that is no {field.type}") from None
    return values

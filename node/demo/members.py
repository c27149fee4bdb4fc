"""Synthetic members: nobody's data, in the shape of a real register.

Role: make rows of the shipped registry's ``member`` table from a seed, fast enough to fill a large city's register.
Reach: the starter catalogue and the standard library; chance comes from the seed alone, and no clock is read.
Invariant: the same arguments give the same rows, and fewer rows are the first of more.

Rows are made column by column, a chunk at a time: one draw for a thousand rows costs a fraction of a thousand draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from itertools import islice
from random import Random
from typing import TypeAlias, TypeVar

from node.demo.units import plain
from node.starter import starter_catalog

SqlValue: TypeAlias = "str | int | None"
_Text = TypeVar("_Text", str, "str | None")
Row: TypeAlias = "tuple[SqlValue, ...]"

# fmt: off
FIELDS: tuple[str, ...] = (
    "id", "full_name", "other_name", "birth_date", "sex", "citizen_id", "birth_place", "home_town", "ethnic_group",
    "religion", "commune", "address_line", "address_commune", "address_province", "phone", "email",
    "family_background", "occupation", "general_education", "degree", "academic_title", "political_theory",
    "languages", "marital_status", "health", "admitted_on", "official_on", "admitted_at_cell", "cell", "introducers",
    "card_number", "card_issued_on", "badges", "position", "government_position", "status", "exempt_from",
    "reviewed_on", "reviewed_by", "card_pages", "has_handbook", "note",
)
"""What a row holds, in this order: ``id``, then the fields of ``member`` as the registry lists them."""

SURNAMES = {
    "Nguyễn": 38, "Trần": 11, "Lê": 9, "Phạm": 7, "Hoàng": 5, "Phan": 4, "Vũ": 4, "Võ": 3, "Đặng": 2, "Bùi": 2,
    "Đỗ": 2, "Hồ": 2, "Ngô": 2, "Dương": 1, "Lý": 1, "Đoàn": 1, "Trịnh": 1, "Mai": 1, "Tạ": 1, "Huỳnh": 3,
}
MEN = ("Văn Hữu Đức Công Quang Minh Xuân Thành Quốc Đình Ngọc Trọng Bá Duy",
       "Hùng Dũng Cường Tuấn Sơn Hải Long Nam Phong Thắng Bình Khoa Kiên Lâm Nghĩa Phúc Quân Tài Trung Việt Đạt Hiếu")
WOMEN = ("Thị Ngọc Thu Thanh Bích Kim Mỹ Phương Hồng Diệu Như Thùy Khánh",
         "Lan Hương Hoa Mai Hạnh Nga Thủy Dung Yến Trang Linh Hằng Loan Oanh Quỳnh Trâm Uyên Vân Xuân Thảo Nhung Tuyết")
STREETS = ("Trần Phú", "Lê Lợi", "Nguyễn Huệ", "Quang Trung", "Hai Bà Trưng", "Lý Thường Kiệt", "Phan Bội Châu",
           "Điện Biên Phủ", "Nguyễn Trãi", "Bà Triệu", "Hùng Vương", "Phan Chu Trinh", "Lê Duẩn", "Võ Thị Sáu")
ELSEWHERE = ("Thành phố Hà Nội", "Tỉnh Nghệ An", "Tỉnh Thanh Hóa", "Tỉnh Quảng Trị", "Tỉnh Bình Định", "Tỉnh Nam Định")
CELLS = ("Trường Trung học cơ sở", "Trường Tiểu học", "Trạm Y tế", "Công an", "Quân sự", "Cơ quan Ủy ban nhân dân",
         "Hợp tác xã Nông nghiệp", "Người cao tuổi", "Doanh nghiệp")
STATUSES = {
    "official": 9000, "probationary": 380, "exempt": 330, "transferred": 170, "sympathiser": 60, "deceased": 40,
    "resigned": 10, "removed": 5, "expelled": 5,
}
BADGE_YEARS = (30, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90)
NOTES = ("Đã đối chiếu với hồ sơ gốc lưu tại đảng ủy", "Thiếu ảnh 3x4, đã nhắc bổ sung trong tháng",
         "Chờ xác minh quá trình công tác trước khi vào Đảng", "Đã bổ sung phiếu năm 2024",
         "Hồ sơ gốc bị ố, khó đọc ngày kết nạp; đã hỏi chi bộ", "Thường trú và nơi ở hiện nay khác nhau")
# fmt: on

_TODAY = date(2025, 6, 30).toordinal()  # the day before the units of this data were reformed: the register's "now"
_FIRST_DAY = date(1925, 1, 1).toordinal()
_FIRST_ID_MS = 1_735_689_600_000  # 2025-01-01T00:00Z
_ADULT_DAYS = 6575  # never less than eighteen years: five leap days are the most they hold
_YEAR_DAYS = 365.25
_CHUNK_ROWS = 1000
_SLOTS = 2000  # how finely a weighted pool tells its shares apart

# Nobody may be reachable or mistaken for real: no province has the number 999, no operator sells 095 numbers,
# no party card begins with 99, and nothing can be registered under .example.
_CITIZEN_PREFIX, _PHONE_PREFIX, _CARD_PREFIX, _MAIL_DOMAIN = "999", "0950", "99.", "vidu.example"
_NUMBERS = 1_000_000
_STRIDE = 387_420_489  # coprime to _NUMBERS, so serials scatter without ever meeting


def members(
    count: int,
    *,
    seed: int,
    communes: Sequence[str],
    province: str = "Thành phố Huế",
    codes: Mapping[str, Sequence[str]] | None = None,
    random_ids: bool = False,
) -> Iterator[Row]:
    """Yield ``count`` rows in the order of ``FIELDS``, as SQL values.

    ``communes`` are the names to draw ``commune`` and addresses from; with none (an island district) both stay NULL.
    ``codes`` maps a catalogue kind to the codes to draw from, commonest first; without it the starter catalogue's.
    Ids look like UUIDv7 from the start of 2025, rising; ``random_ids`` makes them look like UUIDv4 and leaves every
    other value as it was. Citizen, card and mail numbers are distinct within one call up to a million rows;
    give every unit its own seed, since one seed gives the same people everywhere.
    """
    pools = _Pools(_rng(seed, "pools"), communes, province, _starter_codes() | dict(codes or {}))
    rng, id_rng = _rng(seed, "rows"), _rng(seed, "ids")
    ids = _random_ids(id_rng) if random_ids else _rising_ids(id_rng)
    shift = rng.randrange(_NUMBERS)

    def rows() -> Iterator[Row]:
        for first in range(0, count, _CHUNK_ROWS):
            serials = [(n * _STRIDE + shift) % _NUMBERS for n in range(first, first + _CHUNK_ROWS)]
            # A whole chunk is drawn even when less is wanted: fewer rows must be the first of more.
            yield from zip(islice(ids, _CHUNK_ROWS), *_columns(rng, pools, serials), strict=True)

    return islice(rows(), max(count, 0))


def _rng(seed: int, use: str) -> Random:
    """One generator for each use, so that a change of one leaves the others' draws alone."""
    return Random(f"{seed}/{use}")  # noqa: S311 - made-up members are no secret


def _rising_ids(rng: Random) -> Iterator[str]:
    ms = _FIRST_ID_MS
    while True:
        ms += 1 + rng.getrandbits(11)
        tail = rng.getrandbits(74)
        middle, last = 0x7000 | tail >> 62, 0x8000 | tail >> 48 & 0x3FFF
        yield f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-{middle:04x}-{last:04x}-{tail & 0xFFFFFFFFFFFF:012x}"


def _random_ids(rng: Random) -> Iterator[str]:
    while True:
        head, tail = rng.getrandbits(60), rng.getrandbits(62)
        middle, last = 0x4000 | head & 0xFFF, 0x8000 | tail >> 48
        yield f"{head >> 28:08x}-{head >> 12 & 0xFFFF:04x}-{middle:04x}-{last:04x}-{tail & 0xFFFFFFFFFFFF:012x}"


def _starter_codes() -> dict[str, Sequence[str]]:
    codes: dict[str, list[str]] = {}
    for _, kind, code, _, _ in starter_catalog():
        codes.setdefault(kind, []).append(code)
    return {**codes}


def sql_set(elements: Sequence[str]) -> str | None:
    """A set field as its table holds it: a JSON array, sorted, each element once; NULL where it is empty."""
    if not elements:
        return None
    return json.dumps(sorted(set(elements)), ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=1)
def _days() -> tuple[list[str], list[str]]:
    """Every day from ``_FIRST_DAY`` on as ISO, and the same day a year later: formatting dates row by row is slow."""
    days = [date.fromordinal(n) for n in range(_FIRST_DAY, _TODAY + 1)]
    later = [f"{day.year + 1}-03-01" if (day.month, day.day) == (2, 29) else "" for day in days]
    iso = [day.isoformat() for day in days]
    return iso, [leap or f"{int(day[:4]) + 1}{day[4:]}" for day, leap in zip(iso, later, strict=True)]


def _weighted(weights: Mapping[_Text, float]) -> list[_Text]:
    total = sum(weights.values())
    return [value for value, weight in weights.items() for _ in range(max(1, round(weight * _SLOTS / total)))]


def _by_rank(codes: Sequence[str], first: float = 1.0) -> list[str]:
    """Codes listed commonest first: ``first`` times as common as its rank alone would make the first one."""
    return _weighted({code: (first if rank == 1 else 1.0) / rank for rank, code in enumerate(codes, 1)})


def _with_gaps(values: Sequence[str], filled: float) -> list[str | None]:
    """A pool that gives a value in this share of draws, else NULL."""
    return [*values, *[None] * round(len(values) * (1 - filled) / filled)]


class _Pools:
    """What rows are drawn from: each pool repeats a value as often as it should come up."""

    def __init__(self, rng: Random, communes: Sequence[str], province: str, codes: Mapping[str, Sequence[str]]) -> None:
        self.surnames = [(name, plain(name)) for name in _weighted(SURNAMES)]
        sexes = [("nam", MEN)] * 3 + [("nữ", WOMEN)] * 2  # three men to two women
        self.given = [
            (f"{middle} {name}", sex, plain(name))
            for sex, (middles, names) in sexes
            for middle in middles.split()
            for name in names.split()
        ]
        people = [f"{rng.choice(self.surnames)[0]} {rng.choice(self.given)[0]}" for _ in range(400)]
        self.other_name = _with_gaps(people, 0.12)
        self.introducers = [sql_set(rng.sample(people, 2)) for _ in range(600)]
        self.places = [f"{commune}, {province}" for commune in communes] * 9 or [province]
        self.places += [rng.choice(ELSEWHERE) for _ in range(max(1, len(communes)))]
        self.communes: Sequence[str | None] = communes or [None]
        self.province = province
        self.lines = [f"{rng.randint(1, 400)} {street}" for street in STREETS for _ in range(30)]
        self.lines += [f"Thôn {n}" for n in range(1, 13)] * 30
        self.cells = [f"Chi bộ {name}" for name in CELLS] * 4
        self.cells += [f"Chi bộ {kind} {n}" for kind in ("Thôn", "Tổ dân phố") for n in range(1, 13)] * 3
        where = [f", Đảng bộ {commune}" for commune in communes] or [""]
        self.first_cells = [rng.choice(self.cells) + rng.choice(where) for _ in range(500)]
        self.ethnic_group = _by_rank(codes["ethnic_group"], first=26)
        self.religion = _by_rank(codes["religion"], first=20)
        self.occupation = _with_gaps(_by_rank(codes["profession"]), 0.97)
        self.degree = _with_gaps(_by_rank(codes["degree"]), 0.55)
        self.reviewers = rng.sample(people, 6)


_FAMILY = _weighted(
    {"Nông dân": 55, "Công nhân": 15, "Viên chức": 15, "Tiểu thương": 8, "Trung nông": 4, "Trí thức": 3}
)
_SCHOOL = _weighted({"12/12": 78, "10/10": 12, "9/12": 6, "7/10": 4})
_TITLE = _with_gaps(["Phó Giáo sư", "Phó Giáo sư", "Giáo sư"], 0.004)
_THEORY = _with_gaps(_weighted({"sơ cấp": 54, "trung cấp": 34, "cao cấp": 9, "cử nhân": 3}), 0.75)
_LANGUAGES = _weighted(
    {
        sql_set(()): 52,
        sql_set(("Tiếng Anh",)): 36,
        sql_set(("Tiếng Trung",)): 3,
        sql_set(("Tiếng Nga",)): 4,
        sql_set(("Tiếng Anh", "Tiếng Pháp")): 3,
        sql_set(("Tiếng Anh", "Tiếng Lào")): 2,
    }
)
_MARITAL = _weighted({"Đã kết hôn": 78, "Chưa kết hôn": 15, "Góa": 5, "Ly hôn": 2})
_HEALTH = _weighted({"Tốt": 62, "Bình thường": 28, "Trung bình": 8, "Yếu": 2})
_POSITION = _with_gaps(["Chi ủy viên"] * 4 + ["Phó Bí thư chi bộ"] * 3 + ["Bí thư chi bộ"] * 3 + ["Đảng ủy viên"], 0.14)
_OFFICE = _with_gaps(
    ["Trưởng thôn", "Tổ trưởng tổ dân phố", "Hiệu trưởng", "Phó Hiệu trưởng", "Công chức địa chính", "Trạm trưởng"], 0.1
)
_NOTE = _with_gaps(NOTES, 0.6)
_STATUS = _weighted(STATUSES)
_BADGES = [sql_set([f"Huy hiệu {year} năm tuổi Đảng" for year in BADGE_YEARS if year <= years]) for years in range(101)]


def _mails(rng: Random, given: Sequence[str], surnames: Sequence[str], serials: Sequence[int]) -> list[SqlValue]:
    """Three of four have an address, under a domain that is nobody's."""
    has_mail = rng.choices((True, True, True, False), k=len(serials))
    return [
        f"{name}.{surname}.{serial}@{_MAIL_DOMAIN}" if has else None
        for name, surname, serial, has in zip(given, surnames, serials, has_mail, strict=True)
    ]


def _columns(rng: Random, pools: _Pools, serials: Sequence[int]) -> list[Sequence[SqlValue]]:
    """One chunk: every column of ``FIELDS`` after ``id``."""
    size = len(serials)

    def draw(pool: Sequence[SqlValue]) -> Sequence[SqlValue]:
        return rng.choices(pool, k=size)

    surnames, given = rng.choices(pools.surnames, k=size), rng.choices(pools.given, k=size)
    sexes = [sex for _, sex, _ in given]
    status = rng.choices(_STATUS, k=size)
    born, admitted, official, issued, badges, exempt = zip(*[_life(rng, value) for value in status], strict=True)
    mails = _mails(rng, [name for _, _, name in given], [surname for _, surname in surnames], serials)
    phones = [f"{_PHONE_PREFIX}{number:06d}" for number in rng.choices(range(_NUMBERS), k=size)]
    cards = [day and f"{_CARD_PREFIX}{serial:06d}" for day, serial in zip(issued, serials, strict=True)]
    introducers = [day and pair for day, pair in zip(admitted, draw(pools.introducers), strict=True)]
    commune, cell = draw(pools.communes), draw(pools.cells)
    home = draw(pools.places)
    return [
        [f"{surname} {name}" for (surname, _), (name, _, _) in zip(surnames, given, strict=True)],
        draw(pools.other_name),
        [day for day, _ in born],
        sexes,
        _citizen_ids(sexes, [year for _, year in born], serials),
        home,  # most were born where their family comes from
        home,
        draw(pools.ethnic_group),
        draw(pools.religion),
        commune,
        draw(pools.lines),
        commune,
        [pools.province] * size,
        phones,
        mails,
        draw(_FAMILY),
        draw(pools.occupation),
        draw(_SCHOOL),
        draw(pools.degree),
        draw(_TITLE),
        draw(_THEORY),
        draw(_LANGUAGES),
        draw(_MARITAL),
        draw(_HEALTH),
        admitted,
        official,
        [day and where for day, where in zip(admitted, draw(pools.first_cells), strict=True)],
        cell,
        introducers,
        cards,
        issued,
        badges,
        draw(_POSITION),
        draw(_OFFICE),
        status,
        exempt,
        *_review(rng, pools.reviewers, size),
        [4 if day else 1 for day in official],  # newly admitted members start with one page
        rng.choices((1, 1, 1, 0), k=size),
        draw(_NOTE),
    ]


def _citizen_ids(sexes: Sequence[str], years: Sequence[int], serials: Sequence[int]) -> list[str]:
    """Twelve digits laid out as real ones are: place, century and sex, year of birth, number."""
    digits = {("nam", 19): 0, ("nữ", 19): 1, ("nam", 20): 2, ("nữ", 20): 3}
    return [
        f"{_CITIZEN_PREFIX}{digits[sex, year // 100]}{year % 100:02d}{serial:06d}"
        for sex, year, serial in zip(sexes, years, serials, strict=True)
    ]


def _review(rng: Random, reviewers: Sequence[str], size: int) -> tuple[list[str | None], list[str | None]]:
    """Two members in three have been through this year's review: the day and the reviewer, or neither."""
    iso, _ = _days()
    days = rng.choices(iso[-100:] + [""] * 50, k=size)
    names = rng.choices(reviewers, k=size)
    return [day or None for day in days], [name if day else None for day, name in zip(days, names, strict=True)]


_Life: TypeAlias = "tuple[tuple[str, int], str | None, str | None, str | None, str | None, str | None]"


def _life(rng: Random, status: str) -> _Life:
    """Dates that can follow one another: (birth date, its year), admitted, official, card issued, badges, exempt from.

    Nobody is admitted before eighteen; who is official became so exactly one year after, and has a card within half a
    year more. Old birth and admission dates may be partial, as on the paper cards.
    """
    iso, next_year = _days()
    today, chance = _TODAY - _FIRST_DAY, rng.random
    if status == "sympathiser":
        born = iso[today - _ADULT_DAYS - int(chance() * 6000)]
        return (born, int(born[:4])), None, None, None, None, None
    if status == "probationary":
        joined = today - int(chance() * 364)
        born = iso[joined - _ADULT_DAYS - int(chance() ** 2 * 9000)]
        return (born, int(born[:4])), iso[joined], None, None, None, None
    age = 65 + 27 * chance() if status in ("exempt", "deceased") else 20 + 55 * chance() ** 1.3
    born_day = today - int(age * _YEAR_DAYS)
    room = min(today - 550 - born_day - _ADULT_DAYS, 11_000)  # 550: the year on probation, and half a year for the card
    joined = born_day + _ADULT_DAYS + int(chance() ** 1.5 * room)
    born, admitted, official = iso[born_day], iso[joined], next_year[joined]
    year = int(born[:4])
    if year < 1960 and chance() < 0.2:
        born = born[:4] if chance() < 0.5 else born[:7]
    if admitted < "1976" and chance() < 0.1:
        admitted, official = admitted[:7], official[:7]
    issued = iso[joined + 396 + int(chance() * 150)]
    badges = _BADGES[int((today - joined) / _YEAR_DAYS)]
    exempt = iso[today - int(chance() * 1800)] if status == "exempt" else None
    return (born, year), admitted, official, issued, badges, exempt

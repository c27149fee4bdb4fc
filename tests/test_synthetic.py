"""The starter catalogue, units' labels, and the synthetic members of the demo and the benchmarks."""

import json
import re
import unicodedata
from collections import Counter
from datetime import date
from itertools import pairwise

import pytest

from node.demo.members import FIELDS, Row, members
from node.demo.units import District, Province, plain, province, provinces, slug
from node.starter import starter_catalog
from sync_engine.errors import BadName
from sync_engine.names import check_label

COMMUNES = ("Phường Thuận Hòa", "Xã Phú Mậu", "Xã Hồng Vân")
ROWS = list(members(5000, seed=7, communes=COMMUNES))


def column(field: str, rows: list[Row] = ROWS) -> list[object]:
    return [row[FIELDS.index(field)] for row in rows]


def texts(field: str) -> list[str]:
    return [value for value in column(field) if isinstance(value, str)]


def named(row: Row) -> dict[str, str | int | None]:
    return dict(zip(FIELDS, row, strict=True))


# --- the starter catalogue


def test_the_starter_catalogue_has_the_54_ethnic_groups() -> None:
    labels = [label for _, kind, _, label, _ in starter_catalog() if kind == "ethnic_group"]
    assert len(set(labels)) == 54
    assert labels[0] == "Kinh"


def test_the_starter_catalogue_has_every_kind_a_member_needs() -> None:
    kinds = Counter(kind for _, kind, _, _, _ in starter_catalog())
    assert kinds.keys() == {"ethnic_group", "religion", "degree", "profession"}
    assert min(kinds.values()) > 10


def test_catalogue_ids_follow_from_kind_and_code_and_are_distinct() -> None:
    rows = starter_catalog()
    assert [row_id for row_id, *_ in rows] == [f"{kind}-{code}" for _, kind, code, _, _ in rows]
    assert len({row_id for row_id, *_ in rows}) == len(rows)


def test_catalogue_codes_are_short_ascii_and_labels_are_nfc_and_distinct_in_their_kind() -> None:
    rows = starter_catalog()
    assert [
        code for _, _, code, _, _ in rows if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) or len(code) > 20
    ] == []
    assert [
        label for _, _, _, label, _ in rows if not unicodedata.is_normalized("NFC", label) or label != label.strip()
    ] == []
    assert len({(kind, label) for _, kind, _, label, _ in rows}) == len(rows)


def test_catalogue_rows_are_numbered_from_one_in_each_kind() -> None:
    for kind in {row[1] for row in starter_catalog()}:
        sorts = [sort for _, of, _, _, sort in starter_catalog() if of == kind]
        assert sorts == list(range(1, len(sorts) + 1))


def test_a_caller_cannot_spoil_the_catalogue_for_the_next() -> None:
    starter_catalog().clear()
    assert starter_catalog()


# --- labels

SLUGS = {
    "a city under the centre": ("Thành phố Hồ Chí Minh", "ho-chi-minh"),
    "one letter of its own": ("Huyện A Lưới", "a-luoi"),
    "a town": ("Thị xã Hương Trà", "huong-tra"),
    "a bare number keeps its type word": ("Quận 1", "quan-1"),
    "a bare number of two digits": ("Phường 12", "phuong-12"),
    "an apostrophe joins": ("Huyện Đắk R'Lấp", "dak-rlap"),
    "a curly apostrophe is the same": ("Huyện M’Đrắk", "mdrak"),
    "a hyphen between words": ("Tỉnh Bà Rịa - Vũng Tàu", "ba-ria-vung-tau"),
    "a type word in other case": ("Thị Trấn Óc Eo", "oc-eo"),
    "a name that begins like a type word": ("Huyện Xã Tắc", "xa-tac"),
    "no type word": ("Phú Vang", "phu-vang"),
    "a type word glued to more letters is part of the name": ("Xãng", "xang"),
    "decomposed text": (unicodedata.normalize("NFD", "Thị xã Hương Thủy"), "huong-thuy"),
    "too long is cut at the limit, not at a dash": ("Xã " + "Anh " * 12, "anh-anh-anh-anh-anh-anh-anh-anh"),
}


@pytest.mark.parametrize(("name", "label"), SLUGS.values(), ids=SLUGS)
def test_slug(name: str, label: str) -> None:
    assert slug(name) == label
    assert check_label(label) == label


@pytest.mark.parametrize("name", ["", "  ", "'", "京"])
def test_a_name_without_a_usable_letter_gives_no_label(name: str) -> None:
    with pytest.raises(BadName):
        slug(name)


@pytest.mark.parametrize("unit", provinces(), ids=lambda unit: unit.label)
def test_districts_of_a_province_and_communes_of_a_district_have_distinct_valid_labels(unit: Province) -> None:
    families: list[list[str]] = [[district.label for district in unit.districts]]
    families += [[commune.label for commune in district.communes] for district in unit.districts]
    for labels in families:
        assert [check_label(label) for label in labels] == labels
        assert len(set(labels)) == len(labels)


def test_provinces_have_distinct_labels() -> None:
    assert len({check_label(unit.label) for unit in provinces()}) == 63


def district(province_name: str, name: str) -> District:
    return next(unit for unit in province(province_name).districts if unit.name == name)


def test_a_city_and_a_district_of_one_name_both_keep_their_type_word() -> None:
    assert district("Đồng Tháp", "Thành phố Cao Lãnh").label == "thanh-pho-cao-lanh"
    assert district("Đồng Tháp", "Huyện Cao Lãnh").label == "huyen-cao-lanh"


def test_one_name_in_two_provinces_is_no_clash() -> None:
    assert (
        district("Tiền Giang", "Huyện Châu Thành").label
        == district("Bến Tre", "Huyện Châu Thành").label
        == "chau-thanh"
    )


def test_communes_that_differ_in_their_tones_only_get_their_codes() -> None:
    labels = {commune.name: commune.label for commune in district("Lào Cai", "Thị xã Sa Pa").communes}
    assert {name: labels[name] for name in ("Phường Sa Pa", "Phường Sa Pả")} == {
        "Phường Sa Pa": "sa-pa-03001",
        "Phường Sa Pả": "sa-pa-03002",
    }


@pytest.mark.parametrize("wanted", ["46", "Thành phố Huế", "huế", "Huế", "hue", unicodedata.normalize("NFD", "Huế")])
def test_a_province_is_found_by_code_name_or_label(wanted: str) -> None:
    assert province(wanted).name == "Thành phố Huế"
    assert "phu-vang" in {unit.label for unit in province(wanted).districts}


def test_an_unknown_province_is_refused_with_a_hint() -> None:
    with pytest.raises(BadName) as refused:
        province("Atlantis")
    assert refused.value.hint


def test_the_data_is_whole_and_nfc() -> None:
    districts = [unit for each in provinces() for unit in each.districts]
    communes = [unit for each in districts for unit in each.communes]
    assert (len(provinces()), len(districts), len(communes)) == (63, 696, 10_035)
    assert [each.name for each in districts if not each.communes] == [
        "Huyện Bạch Long Vĩ", "Huyện Cồn Cỏ", "Huyện Hoàng Sa", "Huyện Lý Sơn", "Huyện Côn Đảo",
    ]  # fmt: skip
    names = [each.name for each in provinces()] + [each.name for each in districts] + [each.name for each in communes]
    assert [name for name in names if not name or not unicodedata.is_normalized("NFC", name)] == []


# --- members


def test_the_same_arguments_give_the_same_rows() -> None:
    assert list(members(5000, seed=7, communes=COMMUNES)) == ROWS


def test_fewer_rows_are_the_first_of_more() -> None:
    for count in (0, 1, 999, 1000, 1001):
        assert list(members(count, seed=7, communes=COMMUNES)) == ROWS[:count]


def test_another_seed_gives_other_members() -> None:
    others = list(members(1000, seed=8, communes=COMMUNES))
    assert not {row[0] for row in others} & {row[0] for row in ROWS}
    assert [row[1:] for row in others] != [row[1:] for row in ROWS[:1000]]


def test_rows_follow_the_registry() -> None:
    assert (len(FIELDS), len(set(FIELDS)), FIELDS[0], FIELDS[-1]) == (42, 42, "id", "note")
    assert {len(row) for row in ROWS} == {42}


def test_rows_are_about_as_large_as_real_ones() -> None:
    size = sum(len(str(value).encode()) for row in ROWS for value in row if value is not None) / len(ROWS)
    assert 550 < size < 650


def test_text_is_nfc_trimmed_and_never_empty() -> None:
    values = {value for row in ROWS for value in row if isinstance(value, str)}
    assert [value for value in values if not unicodedata.is_normalized("NFC", value) or value != value.strip()] == []
    assert "" not in values


FORMATS = {
    "id": r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "birth_date": r"\d{4}(-\d\d(-\d\d)?)?",
    "sex": "nam|nữ",
    "citizen_id": r"999\d{9}",
    "phone": r"0950\d{6}",
    "email": r"[a-z]+\.[a-z]+\.\d+@vidu\.example",
    "political_theory": "sơ cấp|trung cấp|cao cấp|cử nhân",
    "admitted_on": r"\d{4}-\d\d(-\d\d)?",
    "official_on": r"\d{4}-\d\d(-\d\d)?",
    "card_number": r"99\.\d{6}",
    "card_issued_on": r"\d{4}-\d\d-\d\d",
    "status": "sympathiser|probationary|official|exempt|transferred|deceased|resigned|removed|expelled",
    "exempt_from": r"\d{4}-\d\d-\d\d",
    "reviewed_on": r"2025-\d\d-\d\d",
    "commune": "|".join(COMMUNES),
}


@pytest.mark.parametrize("field", FORMATS)
def test_format_of(field: str) -> None:
    assert texts(field)
    assert [value for value in texts(field) if not re.fullmatch(FORMATS[field], value)] == []


@pytest.mark.parametrize("field", ["full_name", "birth_date", "sex"])
def test_required_fields_are_always_there(field: str) -> None:
    assert len(texts(field)) == len(ROWS)


@pytest.mark.parametrize("field", ["birth_date", "admitted_on", "official_on", "card_issued_on", "exempt_from"])
def test_dates_exist_in_the_calendar(field: str) -> None:
    for value in texts(field):
        assert date.fromisoformat((value + "-01-01")[:10]) <= date(2025, 6, 30)


def test_some_birth_dates_are_partial_and_most_are_not() -> None:
    lengths = Counter(map(len, texts("birth_date")))
    assert lengths.keys() == {4, 7, 10}
    assert lengths[10] > 0.9 * len(ROWS)


@pytest.mark.parametrize("field", ["languages", "introducers", "badges"])
def test_sets_are_sorted_distinct_json_arrays(field: str) -> None:
    for value in texts(field):
        elements = json.loads(value)
        assert elements, "an empty set is NULL"
        assert elements == sorted(set(elements))
        assert value == json.dumps(elements, ensure_ascii=False, separators=(",", ":"))
    assert max(len(json.loads(value)) for value in texts(field)) > 1


def test_numbers_and_flags_are_integers() -> None:
    assert set(column("card_pages")) == {1, 4}
    assert set(column("has_handbook")) == {0, 1}


CODED = {"ethnic_group": "ethnic_group", "religion": "religion", "occupation": "profession", "degree": "degree"}


@pytest.mark.parametrize(("field", "kind"), CODED.items(), ids=CODED)
def test_codes_come_from_the_starter_catalogue_and_all_of_them_occur(field: str, kind: str) -> None:
    rows = list(members(60_000, seed=1, communes=COMMUNES))
    known = {code for _, of, code, _, _ in starter_catalog() if of == kind}
    assert {code for code in column(field, rows) if code is not None} == known


def test_another_catalogue_replaces_the_codes_of_its_kinds_only() -> None:
    rows = list(members(500, seed=1, communes=COMMUNES, codes={"religion": ["a", "b"]}))
    assert set(column("religion", rows)) == {"a", "b"}
    assert "kinh" in column("ethnic_group", rows)


def test_nobody_is_admitted_before_eighteen() -> None:
    for row in map(named, ROWS):
        born, admitted = row["birth_date"], row["admitted_on"]
        if admitted is not None:
            eighteenth = f"{int(str(born)[:4]) + 18}{str(born)[4:]}"
            width = min(len(eighteenth), len(str(admitted)))
            assert str(admitted)[:width] >= eighteenth[:width]


def test_who_is_official_became_so_a_year_after_admission() -> None:
    for row in map(named, ROWS):
        if row["official_on"] is not None:
            admitted = str(row["admitted_on"])
            a_year_on = f"{int(admitted[:4]) + 1}{admitted[4:]}".replace("-02-29", "-03-01")
            assert row["official_on"] == a_year_on
            assert str(row["card_issued_on"]) > a_year_on


def test_a_status_agrees_with_the_rest_of_the_row() -> None:
    assert {"official", "probationary", "exempt", "sympathiser", "deceased"} <= set(column("status"))
    for row in map(named, ROWS):
        status = row["status"]
        assert (row["admitted_on"] is None) == (status == "sympathiser")
        assert (row["official_on"] is None) == (status in ("sympathiser", "probationary"))
        assert (row["card_number"] is None) == (row["card_issued_on"] is None) == (row["official_on"] is None)
        assert (row["exempt_from"] is None) == (status != "exempt")
        assert (row["reviewed_on"] is None) == (row["reviewed_by"] is None)
        assert row["status"] not in ("sympathiser", "probationary") or row["badges"] is None


def test_most_members_are_official_and_few_have_left() -> None:
    share = {status: seen / len(ROWS) for status, seen in Counter(column("status")).items()}
    assert 0.85 < share["official"] < 0.95
    assert share.get("expelled", 0) + share.get("removed", 0) + share.get("resigned", 0) < 0.01


def test_names_agree_with_sex() -> None:
    middles = {sex: {str(row[1]).split()[1] for row in ROWS if named(row)["sex"] == sex} for sex in ("nam", "nữ")}
    assert "Thị" in middles["nữ"] - middles["nam"]
    assert "Văn" in middles["nam"] - middles["nữ"]


def test_the_citizen_number_tells_sex_century_and_year() -> None:
    for row in map(named, ROWS):
        century_and_sex = 2 * (str(row["birth_date"])[:2] == "20") + (row["sex"] == "nữ")
        assert str(row["citizen_id"])[3:6] == f"{century_and_sex}{str(row['birth_date'])[2:4]}"


@pytest.mark.parametrize("field", ["id", "citizen_id", "card_number", "email"])
def test_what_names_one_person_is_never_repeated(field: str) -> None:
    assert len(set(texts(field))) == len(texts(field))


def test_ids_rise_in_the_order_of_creation() -> None:
    assert all(one < next_one for one, next_one in pairwise(texts("id")))


def test_random_ids_change_the_ids_only() -> None:
    rows = list(members(1500, seed=7, communes=COMMUNES, random_ids=True))
    assert [row[1:] for row in rows] == [row[1:] for row in ROWS[:1500]]
    ids = [str(row[0]) for row in rows]
    assert all(re.fullmatch(FORMATS["id"].replace("-7", "-4"), row_id) for row_id in ids)
    assert len(set(ids)) == 1500
    assert ids != sorted(ids)


def test_an_island_district_without_communes_has_members_too() -> None:
    rows = list(members(50, seed=1, communes=(), province="Thành phố Đà Nẵng"))
    assert set(column("commune", rows)) == set(column("address_commune", rows)) == {None}
    assert set(column("address_province", rows)) == {"Thành phố Đà Nẵng"}


def test_plain_text_is_ascii() -> None:
    assert plain("Đắk Lắk Ơ Ư ỹ") == "dak lak o u y"

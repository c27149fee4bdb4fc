"""A node's journal and quarantine for tests of the command line: what 'conflicts' and 'quarantine' answer, made up.

``FakeNode`` answers the commands as a node does, from a list; what it was asked stands in ``asked``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sync_engine.errors import BadInput

DISTRICT, PROVINCE = "phu-vang.hue.vn", "hue.vn"
NOON = 1_795_500_000_000
"""24/11/2026, somewhat after five in the morning UTC."""
ROW = {"Họ và tên khai sinh": "Nguyễn Thị Hồng Phượng", "Ngày sinh": "1962-03-12", "Giới tính": "nữ"}


def write(
    n: int, value: Any, origin: str = DISTRICT, *, won: bool = False, person: str | None = "Lê Thị Lan"
) -> dict[str, Any]:
    level = ["central", "province", "district"][origin.count(".")]
    at = NOON - n * 3_600_000
    return {"n": n, "value": value, "origin": origin, "level": level, "at": at, "person": person, "won": won}


def conflict(number: int, name: str, writes: Sequence[Mapping[str, Any]], **told: Any) -> dict[str, Any]:
    made = {
        "id": number,
        "table": "member",
        "key": "17",
        "field": name,
        "label": {"birth_date": "Ngày sinh", "languages:en": "Ngoại ngữ"}.get(name, name),
        "fields": [] if name in ("_alive", "_twin") else [name.partition(":")[0]],
        "scope": DISTRICT,
        "unit": DISTRICT,
        "state": "open",
        "policy": "review",
        "shown": next((each["value"] for each in writes if each["won"]), None),
        "noted_ms": NOON + number,
        "may_settle": True,
        "live": True,
        "row": ROW,
        "decided": None,
        "writes": list(writes),
    }
    return {**made, **told}


def birth_date(number: int = 1, **told: Any) -> dict[str, Any]:
    rivals = [write(1, "1962-03-12", won=True), write(2, "1962-02-13", PROVINCE, person="Trần Văn Minh")]
    return conflict(number, "birth_date", rivals, **told)


def delete_beside_edit(number: int = 2, **told: Any) -> dict[str, Any]:
    return conflict(number, "_alive", [write(1, True, won=True), write(2, False, PROVINCE, person=None)], **told)


def address(number: int = 3, **told: Any) -> dict[str, Any]:
    fields = ["address_line", "address_commune", "address_province"]
    rivals = [
        write(1, ["12 Phạm Văn Đồng", "Phường Vỹ Dạ", "Thành phố Huế"], won=True),
        write(2, ["21 Phạm Văn Đồng", "Phường Vỹ Dạ", None], PROVINCE, person="Trần Văn Minh"),
    ]
    labels = ["Nơi thường trú", "Nơi thường trú: xã, phường", "Nơi thường trú: tỉnh, thành phố"]
    return conflict(
        number, "address", rivals, **{"label": "Nơi thường trú", "fields": fields, "labels": labels, **told}
    )


def twins(number: int = 4, **told: Any) -> dict[str, Any]:
    first = {**ROW, "Điện thoại": "0912000111", "Quê quán": "Phú Vang", "Ghi chú": None}
    second = {
        "Họ và tên khai sinh": "Trương Đình Quốc",
        "Ngày sinh": "1975",
        "Giới tính": "nam",
        "Quê quán": "Phú Vang",
    }
    return conflict(number, "_twin", [write(1, first, won=True), write(2, second, PROVINCE)], **told)


def language(number: int = 5, **told: Any) -> dict[str, Any]:
    return conflict(
        number, "languages:en", [write(1, True, won=True), write(2, False, PROVINCE)], **{"policy": "union", **told}
    )


def held(number: int = 12, **told: Any) -> dict[str, Any]:
    made = {
        "id": number,
        "table": "member",
        "key": "17",
        "unit": DISTRICT,
        "scope": DISTRICT,
        "field": "occupation",
        "label": "Nghề nghiệp",
        "fields": ["occupation"],
        "reason": "code",
        "value": "thuyền trưởng",
        "shown": "nông dân",
        "origin": PROVINCE,
        "level": "province",
        "at": NOON,
        "person": "Trần Văn Minh",
        "may_decide": True,
        "row": ROW,
    }
    return {**made, **told}


@dataclass
class FakeNode:
    """Answers like a node. ``refuses`` maps a value to the reason why it is not taken."""

    journal: list[dict[str, Any]]
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        self.asked.append((name, dict(arguments)))
        return getattr(self, f"_{name}")(arguments)

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """What was decided, without what was left empty."""
        return [{key: value for key, value in each.items() if value is not None} for each in self._of("resolve")]

    def _of(self, name: str) -> list[dict[str, Any]]:
        return [arguments for asked, arguments in self.asked if asked == name]

    def settle(self, number: int, *, unit: str = PROVINCE, person: str | None = "Trần Văn Minh") -> None:
        """Somebody else decides."""
        decided = {"act": "resolve", "unit": unit, "person": person, "at": NOON, "why": None}
        self._found(number).update(state="settled", decided=decided)

    def _found(self, number: int) -> dict[str, Any]:
        return next(each for each in self.journal if each["id"] == number)

    def _conflicts(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        number = arguments.get("number")
        found = [each for each in self.journal if number in (None, each["id"])]
        for key in ("unit", "table", "field"):
            found = [each for each in found if arguments.get(key) in (None, each[key])]
        if arguments["open"]:
            found = [each for each in found if each["state"] == "open" and each["may_settle"]]
        return [dict(each) for each in reversed(found)]

    def _resolve(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        entry = self._found(arguments["number"])
        value = arguments["value"]
        for text in value.values() if isinstance(value, dict) else (value, arguments["new_id"]):
            if text in self.refuses:
                raise BadInput(self.refuses[text], hint="write dd/mm/yyyy")
        if arguments["keep"] is not None:
            value = next(each["value"] for each in entry["writes"] if each["n"] == arguments["keep"])
        elif isinstance(value, dict):
            value = [value.get(name, old) or None for name, old in zip(entry["fields"], entry["shown"], strict=True)]
        elif arguments["new_id"] is not None:
            value = arguments["new_id"] or "made-1"
        overturned = entry["state"] != "open"
        self.settle(entry["id"], unit=DISTRICT, person=arguments["by"])
        told = {key: entry[key] for key in ("table", "key", "unit", "field")}
        return {"number": entry["id"], **told, "value": value, "overturned": overturned}

    def _quarantine(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.quarantine

    def _release_held(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        entry = next(each for each in self.quarantine if each["id"] == arguments["number"])
        return {"number": entry["id"], **{k: entry[k] for k in ("table", "key", "unit", "field", "value", "shown")}}

    _refuse_held = _release_held

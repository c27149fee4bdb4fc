"""Writes the golden vectors of batch format 1 that are not there: ``python -m tests.vectors.make``.

Role: real batches of made-up people, with everything that is needed to verify and decode them years later.
Reach: tests.forging. Invariant: a vector that has been released is never written again; a new format gets new files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sync_engine.batch import SealedBatch, Settlement, parse_batch, withhold
from sync_engine.entries import Act, Decision, Entries
from sync_engine.registry import BUILTIN, Registry, parse_registry
from sync_engine.verify import decode
from tests.forging import PERSON, Stream, deletes, rows
from tests.world import SHIPPED, World

HERE = Path(__file__).parent
VANG, HUE, ROOT = "phu-vang.hue.vn", "hue.vn", "vn"
FULL: dict[str, Any] = {
    **PERSON, "phone": "0234000000", "languages": (["Anh", "Tày"], []), "address_line": "12 Đường Mẫu",
    "address_province": "Huế", "card_pages": 4, "has_handbook": True, "political_theory": "cao cấp",
    "admitted_on": "1975-05", "note": "Ghi chú thử",
}  # fmt: skip


def plain(value: Any) -> Any:
    """A value as JSON holds it; bytes as hexadecimal."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def said(entries: Entries) -> dict[str, Any]:
    """Everything a section says."""
    return {
        "table": entries.table.name,
        "kind": entries.kind.name,
        "ids": entries.ids,
        "identities": plain(entries.identities),
        "times": entries.times,
        "registers": [each.name for each in entries.registers],
        "firsts": entries.firsts,
        "masks": entries.masks,
        "new": entries.new,
        "by": entries.by,
        "columns": {name: plain(values) for name, values in sorted(entries.columns.items())},
        "removed": entries.removed,
        "withheld": sorted(entries.withheld),
        "held": [each.name for each in entries.registers if each.name in entries.barred],
        **({} if entries.decisions is None else {"decisions": entries.decisions}),
    }


def header_of(batch: SealedBatch) -> dict[str, Any]:
    """Everything a header says. Fields that came later are left out where they say nothing."""
    found = asdict(batch.header)
    later = ("braked", "settles", "repeats")
    found = {name: value for name, value in found.items() if name not in later or value}
    return json.loads(json.dumps(found, default=as_json))  # type: ignore[no-any-return]


def as_json(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else sorted(value)


def batches(world: World) -> Iterator[tuple[str, SealedBatch, Registry, Stream]]:
    """(name, batch, registry, stream) of each vector."""
    registry = parse_registry(recorded())
    member, district, root = registry.tables["member"], Stream(world, VANG), Stream(world, ROOT)
    inserts = rows(member, ("1", 10 << 16, FULL), ("số 2", 11 << 16, PERSON), new=True)
    inserts.by = ["người nhập", None]
    first = district.batch(inserts)
    yield "inserts", first, registry, district
    edits = rows(member, ("1", 20 << 16, {"note": None}), ("1", (21 << 16) + 3, {"languages": (["Nga"], ["Anh"])}))
    edits.firsts = [15 << 16, None]
    yield "edits_and_deletes", district.batch(edits, deletes(member, ("số 2", 2**63 - 1))), registry, district
    above = root.batch(rows(member, ("1", 30 << 16, {"status": "official"})), seen=[first.head], again=True)
    yield "seen_by_a_superior", above, registry, root
    denied = district.batch(rows(member, ("1", 40 << 16, {"card_number": "1"})), seen=[above.head])
    yield "held", denied, registry, district
    less = withhold(first, lambda table, column: column != "phone")
    yield "withheld", parse_batch(less), registry, district
    unit = rows(BUILTIN["_unit"], ("-", 10 << 16, {"name": "Phú Vang", "code": "474"}), new=True)
    braked = district.batch(rows(member, ("1", 50 << 16, {"note": "nhầm"})), seen=[above.head], braked=True)
    yield "braked", braked, registry, district
    back = rows(member, ("1", 51 << 16, {"note": None}))
    settles = Settlement(braked.header.seq, frozenset({("member", "note"), ("member", "_alive")}))
    yield "undone", district.batch(back, seen=[above.head], settles=settles), registry, district
    released = Settlement(braked.header.seq, frozenset())
    yield "released", district.batch(seen=[above.head], settles=released), registry, district
    yield "unit", Stream(world, HUE).batch(unit), registry, Stream(world, HUE)
    decided = rows(member, ("1", 60 << 16, {"phone": "0950000002"}))
    decided.by, decided.decisions = ["Lan"], [Decision(Act.RESOLVE, 2**47 + 1, "đã gọi")]
    yield "decided", district.batch(decided, seen=[above.head]), registry, district


def recorded() -> str:
    """The registry that the vectors were made under: what was released is never made anew."""
    path = HERE / "registry_v1.toml"
    if not path.exists():
        path.write_text(SHIPPED, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def main() -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder), registry=recorded())
        for name, batch, registry, stream in batches(world):
            key = world.tree.node(stream.origin).key.public_key()
            vector = {
                "name": name,
                "data": batch.data.hex(),
                "public_key": key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex(),
                "certificate_path": [each.hex() for each in world.tree.node(stream.origin).path],
                "head": batch.head.hash.hex(),
                "header": header_of(batch),
                "sections": [said(entries) for entries in decode(batch, registry)],
            }
            path = HERE / f"batch_v1_{name}.json"
            if not path.exists():
                path.write_text(json.dumps(vector, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

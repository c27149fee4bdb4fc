"""Golden vectors: a batch sealed when its format was young is still understood, and not one byte more is.

Written once by ``tests/vectors/make.py`` and never again: a change that breaks one breaks every register there is.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from conflict.values import Epoch, UnitPath
from sync_engine.batch import encode_batch, encode_header, parse_batch
from sync_engine.certificates import check_signature, verify_node_path
from sync_engine.errors import BadSignature, RemoteFault
from sync_engine.registry import parse_registry
from sync_engine.verify import check_origin, decode
from tests.vectors.make import header_of, said

VECTORS = Path(__file__).parent / "vectors"
REGISTRY = parse_registry((VECTORS / "registry_v1.toml").read_text(encoding="utf-8"))
NAMES = (
    "inserts",
    "edits_and_deletes",
    "seen_by_a_superior",
    "held",
    "withheld",
    "unit",
    "braked",
    "undone",
    "released",
    "decided",
)


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / f"batch_v1_{name}.json").read_text(encoding="utf-8"))
    return found


def test_every_vector_is_read() -> None:
    assert {f"batch_v1_{name}.json" for name in NAMES} == {path.name for path in VECTORS.glob("batch_v1_*.json")}


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_batch_is_still_understood(name: str) -> None:
    vector = load(name)
    batch = parse_batch(bytes.fromhex(vector["data"]))
    assert batch.head.hash.hex() == vector["head"]
    assert header_of(batch) == vector["header"]
    assert json.loads(json.dumps([said(entries) for entries in decode(batch, REGISTRY)])) == vector["sections"]


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_batch_still_verifies_with_its_origins_path_alone(name: str) -> None:
    vector = load(name)
    batch = parse_batch(bytes.fromhex(vector["data"]))
    path = [bytes.fromhex(each) for each in vector["certificate_path"]]
    origin = verify_node_path(path, sha256(path[-1]).digest())
    assert (origin.unit, origin.epoch) == (UnitPath(vector["header"]["stream"]["origin"]), Epoch("00000000000000a1"))
    check_origin(batch, origin)
    key: Any = load_der_public_key(bytes.fromhex(vector["public_key"]))
    check_signature(key, "batch", batch.header_bytes, batch.signature)
    with pytest.raises(BadSignature):
        check_signature(key, "batch", batch.header_bytes + b"\0", batch.signature)
    with pytest.raises(BadSignature):
        check_signature(key, "receipt", batch.header_bytes, batch.signature)


@pytest.mark.parametrize("name", NAMES)
def test_one_byte_more_or_other_is_refused_wherever_it_stands(name: str) -> None:
    vector = load(name)
    data = bytes.fromhex(vector["data"])
    path = [bytes.fromhex(each) for each in vector["certificate_path"]]
    origin = verify_node_path(path, sha256(path[-1]).digest())
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
        try:
            batch = parse_batch(changed)
            check_origin(batch, origin)
        except RemoteFault:
            continue
        same = parse_batch(data)
        assert (batch.header_bytes, batch.signature) == (same.header_bytes, same.signature)
        assert all(chunk.items() <= known.items() for chunk, known in zip(batch.chunks, same.chunks, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_this_version_seals_the_very_same_bytes(name: str) -> None:
    """Not promised by the format, which signs bytes as sent; noticed here if the library's next release differs."""
    batch = parse_batch(bytes.fromhex(load(name)["data"]))
    assert encode_header(batch.header) == batch.header_bytes
    assert encode_batch(batch.header_bytes, batch.signature, batch.chunks) == batch.data

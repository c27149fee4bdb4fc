"""Hostile files: whatever lies on a stick, ``import`` takes a good bundle or refuses all of it in one clear line."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from conflict.values import UnitPath
from node import bundle_file, envelope
from node.bundle_file import Bundle, prove
from node.commands import carrying
from node.envelope import KeyPair, seal_to
from node.sealed_chunks import CHUNK_BYTES, PREFIX_BYTES, TAG_BYTES, ChunkWriter
from sync_engine.bundle import (
    LENGTH_BYTES,
    MAGIC,
    BundleEnd,
    BundleHeader,
    Expired,
    NoBundle,
    NotForHere,
    encode_envelope,
    encode_header,
    parse_header,
    sign_end,
)
from sync_engine.certificates import Signer
from sync_engine.errors import (
    BadCertificate,
    BadInput,
    BadSignature,
    LimitExceeded,
    Malformed,
    OutOfScope,
    ReplicationError,
    WrongTree,
)
from sync_engine.limits import FRAME_BYTES_MAX
from tests.lives import Family
from tests.sticks import Sticks, assert_clear, noise

A, D, P, C = "a.phu-vang.hue.vn", "phu-vang.hue.vn", "hue.vn", "vn"
DAY_MS = 24 * 3600 * 1000


# --- what is looked at -----------------------------------------------------------------------------------------------


def everything(family: Family, name: str) -> dict[str, tuple[int, bytes]]:
    """Each table of a node: how many rows, and a digest of them."""
    tables = [table for (table,) in family.sql(name, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = {table: family.sql(name, f"SELECT * FROM {table}") for table in tables}
    return {table: (len(each), sha256(repr(sorted(map(repr, each))).encode()).digest()) for table, each in rows.items()}


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Refuser:
    """The province, which takes nothing of what it is shown."""

    def __init__(self, family: Family, sticks: Sticks) -> None:
        self.family, self.sticks = family, sticks
        self.before = everything(family, P)

    async def refuses(self, *paths: Path, **more: object) -> ReplicationError:
        """Nothing is written, neither into the database nor beside the file."""
        beside, answers = [self._beside(path) for path in paths], self.sticks.stick()
        with pytest.raises(ReplicationError) as caught:
            await self.sticks.take(P, *paths, out=str(answers), **more)
        assert_clear(caught.value)
        assert listing(answers) == []
        assert [self._beside(path) for path in paths] == beside
        return caught.value

    def _beside(self, path: Path) -> list[str]:
        return [] if path.is_relative_to("/dev") else sorted(os.listdir(path if path.is_dir() else path.parent))

    def assert_unchanged(self) -> None:
        assert everything(self.family, P) == self.before


@pytest.fixture
def refuser(family: Family, sticks: Sticks) -> Iterator[Refuser]:
    family.enter(D, D, "1", "Nguyễn Văn An", note="by stick")
    refusing = Refuser(family, sticks)
    yield refusing
    refusing.assert_unchanged()


# --- what is forged --------------------------------------------------------------------------------------------------


def keys_of(family: Family, name: str) -> list[KeyPair]:
    return envelope.load_all(family.home(name))


def signer_of(family: Family, name: str) -> Signer:
    return family.nodes[name].context.speaks_as[1]


def records_of(path: Path, keys: Sequence[KeyPair]) -> list[bytes]:
    """Of a good bundle: header, frames, end."""
    with path.open("rb") as file:
        (reader, _beginning), found = bundle_file._reader(file, keys), list[bytes]()
        while data := bundle_file._record(reader, FRAME_BYTES_MAX):
            found.append(data)
        return [*found, bundle_file._record(reader, FRAME_BYTES_MAX)]


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def sealed(plain: bytes, to: KeyPair) -> bytes:
    """A file of any content, as anybody can make it who knows a unit's public key."""
    file_key, prefix = secrets.token_bytes(32), secrets.token_bytes(PREFIX_BYTES)
    beginning = MAGIC + framed(encode_envelope(seal_to(to.kem, to.public, file_key))) + prefix
    into = Written()
    writer = ChunkWriter(into, AESGCM(file_key), prefix, beginning)  # type: ignore[arg-type]
    writer.write(plain)
    writer.finish()
    return beginning + bytes(into.data)


class Written:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data


def signed(header: BundleHeader, frames: Sequence[bytes], sign: Signer, **changed: Any) -> bytes:
    """A whole bundle's plain text, with an end that fits unless something of it is changed."""
    records = b"".join(map(framed, [encode_header(header), *frames]))
    end = replace(BundleEnd(sha256(records).digest(), 1), **changed)
    return records + framed(b"") + framed(sign_end(end, header.tree_id, sign))


async def exported(sticks: Sticks, name: str = D, to: str = P, **more: object) -> Path:
    """The one file of a bundle."""
    [path] = (await sticks.export(name, to, **more)).iterdir()
    return path


# --- bytes -----------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_cut_anywhere_is_refused(family: Family, sticks: Sticks) -> None:
    for at in range(8):
        family.enter(D, D, str(at), "Nguyễn Văn An", note=noise(60_000, at))
    path = await exported(sticks)
    whole, refuser, keys = path.read_bytes(), Refuser(family, sticks), keys_of(family, P)
    with path.open("rb") as file:
        start = len(bundle_file._envelope(file)[1])
    borders = list(range(start, len(whole), CHUNK_BYTES + TAG_BYTES))
    assert len(borders) > 3
    places = [*range(0, start, 97), *(border + by for border in borders for by in (-1, 0, 1, TAG_BYTES, 1000))]
    for place in [*places, len(whole) - 1]:
        path.write_bytes(whole[:place])
        with pytest.raises(NoBundle) as caught:
            prove(path, keys, UnitPath(P), family.nodes[P].context.tree_id)
        assert_clear(caught.value)
    for place in (0, start - 1, start, borders[1], len(whole) - 1):
        path.write_bytes(whole[:place])
        await refuser.refuses(path)
    refuser.assert_unchanged()
    for more in (b"\0", whole[start:], whole):
        path.write_bytes(whole + more)
        assert isinstance(await refuser.refuses(path), NoBundle)
    chunks = [whole[border : border + CHUNK_BYTES + TAG_BYTES] for border in borders]
    for order in (chunks[1:], chunks[::-1], [chunks[1], chunks[0], *chunks[2:]], [chunks[0], *chunks], chunks[:-1]):
        path.write_bytes(whole[:start] + b"".join(order))
        assert isinstance(await refuser.refuses(path), NoBundle)
    refuser.assert_unchanged()
    path.write_bytes(whole)
    await sticks.take(P, path)
    assert family.sql(P, "SELECT count(*) FROM member") == [(8,)]


async def test_a_byte_that_is_changed_anywhere_is_noticed(family: Family, sticks: Sticks, refuser: Refuser) -> None:
    path = await exported(sticks)
    whole, keys = path.read_bytes(), keys_of(family, P)
    for place in [*range(60), *range(60, len(whole), 19), len(whole) - 1]:
        for bit in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises((NoBundle, NotForHere)) as caught:
                prove(path, keys, UnitPath(P), family.nodes[P].context.tree_id)
            assert_clear(caught.value)
    await refuser.refuses(path)


# --- who wrote for whom ----------------------------------------------------------------------------------------------


async def test_what_another_than_its_sender_wrote_is_refused(
    family: Family, sticks: Sticks, refuser: Refuser, tmp_path: Path
) -> None:
    keys, path = keys_of(family, P), tmp_path / "x.dongbo"
    header, *frames, _end = records_of(await exported(sticks), keys)
    good = parse_header(header)
    stranger = parse_header(records_of(await exported(sticks, A, D), keys_of(family, D))[0])
    district, commune = signer_of(family, D), signer_of(family, A)
    other = records_of(await exported(sticks), keys)[-1]
    rest = b"".join(map(framed, [header, *frames]))
    cases: dict[str, tuple[bytes, type[ReplicationError]]] = {
        "signed by another unit's key": (signed(good, frames, commune), BadSignature),
        "with another unit's certificate": (signed(replace(good, path=stranger.path), frames, commune), BadCertificate),
        "by a unit that is no neighbour": (signed(replace(stranger, recipient=UnitPath(P)), [], commune), OutOfScope),
        "with the end of another bundle": (rest + framed(b"") + framed(other), Malformed),
        "with an end that was signed for another tree": (
            rest + framed(b"") + framed(sign_end(BundleEnd(sha256(rest).digest(), 1), b"x" * 32, district)),
            Malformed,
        ),
        "of another tree": (signed(replace(good, tree_id=b"x" * 32), frames, district), WrongTree),
        "without a certificate": (signed(replace(good, path=()), frames, district), BadCertificate),
        "part 2 of 1": (signed(replace(good, part=2), frames, district), Malformed),
        "a frame is left out": (signed(good, frames, district, digest=sha256(rest + framed(b"x")).digest()), Malformed),
        "a frame that is too long": (framed(header) + (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x" * 50, NoBundle),
        "a header that is too long": (b"\xff" * 2000, NoBundle),
        "a header of noise": (framed(b"\xff" * 2000), Malformed),
        "no header": (framed(b""), Malformed),
        "no end": (rest, NoBundle),
        "an end of noise": (rest + framed(b"") + framed(b"\xff" * 200), Malformed),
        "nothing": (b"", NoBundle),
        "more after the end": (signed(good, frames, district) + framed(b"x"), NoBundle),
    }
    for case, (plain, kind) in cases.items():
        path.write_bytes(sealed(plain, keys[0]))
        fault = await refuser.refuses(path)
        assert type(fault) is kind, (case, fault)
    path.write_bytes(sealed(signed(good, frames, district), keys[0]))
    prove(path, keys, UnitPath(P), good.tree_id)  # so it is what the cases change that is refused


async def test_a_neighbour_that_breaks_the_protocol_does_not_keep_out_the_others(
    family: Family, sticks: Sticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bundle is signed as it should be; what is in it is told to be wrong, and no answer is written for it."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    keys, path, other = keys_of(family, P), await exported(sticks), await exported(sticks, C, P)
    header, *frames, _end = records_of(path, keys)
    path.write_bytes(sealed(signed(parse_header(header), [frames[0], *frames], signer_of(family, D)), keys[0]))
    answers = sticks.stick()
    with pytest.raises(Malformed, match="a bundle introduces its sender twice") as caught:
        await sticks.take(P, path, out=str(answers))
    assert_clear(caught.value)
    with monkeypatch.context() as patch:
        patch.setattr("node.carrying.WORDS_BYTES_MAX", 100)
        with pytest.raises(LimitExceeded) as exceeded:
            await sticks.take(P, path, out=str(answers))
    assert_clear(exceeded.value)
    with pytest.raises(BadInput, match="2 answers do not go into one file") as unfit:
        await sticks.take(P, path, other, out=str(answers / "one"))
    assert_clear(unfit.value)
    assert listing(answers) == []
    told = await sticks.take(P, path, other)
    assert [each["unit"] for each in told["from"]] == [C]  # type: ignore[attr-defined]
    assert told["left"] == [f"{D}: a bundle introduces its sender twice"]
    assert not told["ok"]


async def test_a_bundle_for_another_unit_is_not_read(family: Family, sticks: Sticks, refuser: Refuser) -> None:
    elsewhere = await exported(sticks, D, A)
    fault = await refuser.refuses(elsewhere)
    assert isinstance(fault, NotForHere)
    assert fault.hint == "nothing of it was read; carry it to the unit that it was written for"
    fault = await refuser.refuses(elsewhere.parent)  # a folder may hold what is for others
    assert str(fault) == "there is no bundle for hue.vn there; files for other units: 1"
    keys = keys_of(family, P)
    header, *frames, _end = records_of(await exported(sticks), keys)
    wrong = replace(parse_header(header), recipient=UnitPath(C))
    elsewhere.write_bytes(sealed(signed(wrong, frames, signer_of(family, D)), keys[0]))
    assert str(await refuser.refuses(elsewhere)) == "this bundle was written for vn, and this is hue.vn"


async def test_a_bundle_that_is_too_old_is_taken_when_one_says_so(family: Family, sticks: Sticks) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An")
    path, refuser = await exported(sticks), Refuser(family, sticks)
    family.ahead_ms = 91 * DAY_MS
    fault = await refuser.refuses(path)
    assert isinstance(fault, Expired)
    assert "--expired" in fault.hint
    refuser.assert_unchanged()
    await sticks.take(P, path, expired=True)
    assert family.sql(P, "SELECT id FROM member") == [("1",)]


# --- what is no file -------------------------------------------------------------------------------------------------


def test_what_is_made_in_each_case_is_there(tmp_path: Path) -> None:
    """The cases below make what they say."""
    for make in NO_FILES.values():
        made = make(tmp_path, tmp_path / "good")
        assert made.exists() or made.is_symlink() or made.name == "gone.dongbo"


def link(folder: Path, good: Path) -> Path:
    good.touch()
    (folder / "link.dongbo").symlink_to(good)
    return folder / "link.dongbo"


def pipe(folder: Path, _good: Path) -> Path:
    os.mkfifo(folder / "pipe.dongbo")
    return folder / "pipe.dongbo"


def socket(folder: Path, _good: Path) -> Path:
    os.mknod(folder / "socket.dongbo", 0o140600)
    return folder / "socket.dongbo"


def device(_folder: Path, _good: Path) -> Path:
    return Path("/dev/zero")


def device_link(folder: Path, _good: Path) -> Path:
    (folder / "device.dongbo").symlink_to("/dev/zero")
    return folder / "device.dongbo"


def inner_folder(folder: Path, _good: Path) -> Path:
    (folder / "folder.dongbo").mkdir()
    return folder / "folder.dongbo"


def giant(folder: Path, good: Path) -> Path:
    """Sparse, with a beginning that is right."""
    path = folder / "giant.dongbo"
    path.write_bytes(good.read_bytes() if good.exists() else b"")
    os.truncate(path, 1 << 40)
    return path


def noise_giant(folder: Path, _good: Path) -> Path:
    path = folder / "noise.dongbo"
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)
    return path


def empty(folder: Path, _good: Path) -> Path:
    (folder / "empty.dongbo").touch()
    return folder / "empty.dongbo"


def gone(folder: Path, _good: Path) -> Path:
    return folder / "gone.dongbo"


def named_to_steer(folder: Path, _good: Path) -> Path:
    """Two lines and a cleared screen for whoever shows its name as it is; not even text."""
    path = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\x1b[2J\ndongbo: all is well.dongbo"))
    path.touch()
    return path


NO_FILES: dict[str, Callable[[Path, Path], Path]] = {
    each.__name__: each
    for each in (link, pipe, socket, device, device_link, inner_folder, giant, noise_giant, empty, gone, named_to_steer)
}


@pytest.mark.timeout(60)
async def test_what_only_looks_like_a_file_is_refused(
    family: Family, sticks: Sticks, refuser: Refuser, tmp_path: Path
) -> None:
    good = await exported(sticks)
    for name, make in NO_FILES.items():
        folder = tmp_path / name
        folder.mkdir()
        made = make(folder, good)
        fault = await refuser.refuses(made)
        assert "Errno" not in str(fault)
        if made.parent == folder and name not in ("inner_folder", "gone"):
            fault = await refuser.refuses(made, folder)
            assert str(fault).startswith(bundle_file.shown(made) + ": "), fault
        fault = await refuser.refuses(folder)
    assert await refuser.refuses(tmp_path / "giant")
    assert len(os.listdir("/proc/self/fd")) < 200


async def test_good_ones_are_taken_and_a_line_tells_of_each_other(
    family: Family, sticks: Sticks, tmp_path: Path
) -> None:
    """A folder full of traps with a good bundle among them."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    good = await exported(sticks)
    for make in NO_FILES.values():
        make(good.parent, good)
    elsewhere = await exported(sticks, D, A)
    told = await sticks.take(P, good.parent, elsewhere)
    assert family.sql(P, "SELECT id FROM member") == [("1",)]
    left = told["left"]
    assert isinstance(left, list)
    assert all(str(line).isprintable() for line in left)
    assert len(left) == len(NO_FILES) - 2 + 1  # all but /dev/zero and what is gone, and that of another unit
    assert f"{elsewhere.name}: this bundle is not for this unit: none of its keys opens it" in left
    assert "link.dongbo: this is a link, not a file" in left


async def test_a_file_that_is_changed_after_it_was_proven_is_not_read_on(
    family: Family, sticks: Sticks, tmp_path: Path
) -> None:
    """Whoever can write to the stick meanwhile, and knows all that stands in the header."""
    family.enter(D, D, "1", "Nguyễn Văn An")
    path, keys = await exported(sticks), keys_of(family, P)
    bundle: Bundle = prove(path, keys, UnitPath(P), family.nodes[P].context.tree_id)
    assert len(list(bundle.frames())) > 2
    header, *frames, _end = records_of(path, keys)
    path.write_bytes(sealed(b"".join(map(framed, [header, b"forged", *frames])) + framed(b""), keys[0]))
    with pytest.raises(NoBundle, match="changed while it was read"):
        list(bundle.frames())
    path.unlink()
    with pytest.raises(ReplicationError) as caught:
        list(bundle.frames())
    assert_clear(caught.value)


async def test_a_long_proof_is_told_and_ends_when_it_is_given_up(
    family: Family, sticks: Sticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An")
    path, told = await exported(sticks), list[Mapping[str, Any]]()
    monkeypatch.setattr(carrying, "TELL_S", 0.0)
    asked = {"files": [str(path)], "out": str(sticks.stick())}
    refuser = Refuser(family, sticks)

    def give_up(progress: Mapping[str, Any]) -> None:
        told.append(progress)
        work.cancel()

    work = asyncio.create_task(carrying.import_(family.nodes[P], asked, give_up))
    with pytest.raises(asyncio.CancelledError):
        await work
    refuser.assert_unchanged()
    assert told[0]["file"] == path.name
    assert 0 < told[0]["read_bytes"] <= path.stat().st_size
    with pytest.raises(bundle_file.GivenUp):
        await asyncio.to_thread(prove, path, keys_of(family, P), UnitPath(P), family.nodes[P].context.tree_id, _raise)


def _raise(_done: int) -> None:
    raise bundle_file.GivenUp


# --- names -----------------------------------------------------------------------------------------------------------


async def test_only_the_file_that_the_operator_names_is_written(family: Family, sticks: Sticks, tmp_path: Path) -> None:
    family.enter(D, D, "1", "Nguyễn Văn An")
    folder = tmp_path / "out" / "deep"
    folder.mkdir(parents=True)
    await sticks.export(D, P, out=str(folder / ".." / "named"))
    assert listing(tmp_path / "out") == ["deep", "named.dongbo"]
    for taken in ("named", "named.dongbo"):
        with pytest.raises(BadInput, match="is there already") as caught:
            await sticks.export(D, P, out=str(tmp_path / "out" / taken))
        assert_clear(caught.value)
    (tmp_path / "out" / "link.dongbo").symlink_to(tmp_path / "target")
    for taken in ("link", "link.dongbo", "missing/named", "named.dongbo/named"):
        with pytest.raises(BadInput) as caught:
            await sticks.export(D, P, out=str(tmp_path / "out" / taken))
        assert_clear(caught.value)
    await sticks.export(D, P, out=str(tmp_path / "out" / "deep" / ".."))
    assert len(listing(tmp_path / "out")) == 4
    assert not (tmp_path / "target").exists()


async def test_a_later_part_does_not_replace_a_file_that_is_there(
    family: Family, sticks: Sticks, tmp_path: Path
) -> None:
    for at in range(4):
        family.enter(D, D, str(at), "Nguyễn Văn An", note=noise(30_000, at))
        await family.nodes[D].seal()
    out = sticks.stick()
    (out / "week-2.dongbo").write_bytes(b"of last week")
    with pytest.raises(BadInput, match="is there already"):
        await sticks.export(D, P, out=str(out / "week.dongbo"), part_bytes=70_000)
    assert listing(out) == ["week-2.dongbo"]
    assert (out / "week-2.dongbo").read_bytes() == b"of last week"

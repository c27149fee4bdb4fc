"""A stick that is full, dies or is pulled at any moment of an export: whole parts, or none, and a clear word."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conflict.values import UnitPath
from node import bundle_file, envelope, platform
from node.bundle_file import SUFFIX, candidates, prove
from sync_engine.errors import DiskFull, LocalFault
from tests.lives import Family
from tests.sticks import Sticks, assert_clear, noise

D, P = "phu-vang.hue.vn", "hue.vn"
PART_BYTES = 300_000


@dataclass
class Stick:
    """What a bundle's files are written to. Its ``fails_at``-th operation fails, as ``how`` says, and those after."""

    folder: Path
    how: str = ""
    fails_at: int = 0
    steps: list[str] = field(default_factory=list)

    @property
    def is_failing(self) -> bool:
        return 0 < self.fails_at <= len(self.steps)

    def step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) == self.fails_at and self.how == "gone":
            self.folder.rename(self.folder.with_name("gone"))
        if self.is_failing and self.how != "gone" and not (self.how == "full" and name in ("unlink", "rename")):
            number = errno.ENOSPC if self.how == "full" else errno.EIO
            raise OSError(number, os.strerror(number), str(self.folder))

    @contextmanager
    def used(self) -> Iterator[None]:
        """All that ``bundle_file`` asks of the system goes through here."""
        replace, unlink, sync = Path.replace, Path.unlink, platform.sync_directory

        def on_rename(path: Path, to: Path) -> Path:
            self.step("rename")
            return replace(path, to)

        def on_unlink(path: Path, missing_ok: bool = False) -> None:
            if path.suffix in (SUFFIX, ".part"):
                self.step("unlink")
            unlink(path, missing_ok)

        def on_sync(path: Path) -> None:
            if path == self.folder:
                self.step("sync")
            sync(path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bundle_file, "os", _System(self))
            patch.setattr(Path, "replace", on_rename)
            patch.setattr(Path, "unlink", on_unlink)
            patch.setattr(platform, "sync_directory", on_sync)
            yield


class _System:
    """The module ``os``, as far as it writes."""

    def __init__(self, stick: Stick) -> None:
        self._stick = stick

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        self._stick.step("open")
        return os.open(path, flags, mode)

    def fdopen(self, descriptor: int, _mode: str) -> io.BufferedWriter:
        return io.BufferedWriter(_Raw(descriptor, self._stick))

    def fsync(self, descriptor: int) -> None:
        self._stick.step("fsync")
        os.fsync(descriptor)


class _Raw(io.FileIO):
    def __init__(self, descriptor: int, stick: Stick) -> None:
        super().__init__(descriptor, "wb")
        self._stick = stick

    def write(self, data: Any) -> int:
        try:
            self._stick.step("write")
        except OSError:
            super().write(bytes(data)[: len(data) // 2])  # as far as it came
            raise
        return super().write(data)


async def enter_much(family: Family) -> None:
    """So much that each of several parts is written in several steps."""
    for at in range(8):
        family.enter(D, D, str(at), "Nguyễn Văn An", note=noise(60_000, at))
        await family.nodes[D].seal()


async def export(sticks: Sticks, stick: Stick) -> None:
    with stick.used():
        await sticks.export(D, P, out=str(stick.folder), part_bytes=PART_BYTES)


@pytest.mark.parametrize("how", ["full", "pulled", "gone"])
async def test_each_file_with_a_lasting_name_is_whole(family: Family, sticks: Sticks, how: str) -> None:
    await enter_much(family)
    keys, tree_id = envelope.load_all(family.home(P)), family.nodes[P].context.tree_id
    good = Stick(sticks.stick())
    await export(sticks, good)
    assert good.steps.count("open") == good.steps.count("rename") > 2
    assert good.steps.count("write") > 2 * good.steps.count("open")
    found = set()
    for at in range(1, len(good.steps) + 1):
        stick = Stick(sticks.stick(), how, at)
        with pytest.raises(LocalFault) as caught:
            await export(sticks, stick)
        assert_clear(caught.value)
        assert isinstance(caught.value, DiskFull) == (how == "full"), (at, caught.value)
        folder = stick.folder if how != "gone" else stick.folder.with_name("gone")
        named = candidates([folder])
        for path in named:
            prove(path, keys, UnitPath(P), tree_id)
        found.add(len(named))
        if how == "full":
            assert list(folder.iterdir()) == []
        if how == "gone":
            folder.rename(sticks.stick() / "was gone")
    assert (how == "full") == (found == {0})  # else it was gone between two names, and what had one has it
    told = await sticks.take(P, good.folder)
    assert family.sql(P, "SELECT count(*) FROM member") == [(8,)]
    await sticks.take(D, Path(str(told["answer"])))


async def test_what_was_left_on_a_stick_is_cleared_away_by_the_next_export(family: Family, sticks: Sticks) -> None:
    """That of others is theirs."""
    await enter_much(family)
    stick = Stick(sticks.stick(), "pulled", 6)
    with pytest.raises(LocalFault):
        await export(sticks, stick)
    left = list(stick.folder.iterdir())
    assert left
    assert {path.suffix for path in left} == {".part"}
    others = stick.folder / ".0123-0123456789abcdef.dongbo.part"
    others.touch()
    await export(sticks, Stick(stick.folder))
    assert [path for path in stick.folder.iterdir() if path.suffix != SUFFIX] == [others]

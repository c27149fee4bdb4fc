"""Sticks between the nodes of a ``Family``: what one writes, another takes in."""

from __future__ import annotations

from pathlib import Path
from random import Random

from node.commands.carrying import export, import_
from sync_engine.errors import ReplicationError
from tests.lives import Family


class Sticks:
    """A folder for each journey; nothing of it is read twice unless a test does so."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family, self.folder = family, folder
        self.count = 0

    def stick(self) -> Path:
        self.count += 1
        made = self.folder / f"stick {self.count}"
        made.mkdir(parents=True)
        return made

    async def export(self, name: str, to: str, **more: object) -> Path:
        """A stick with a bundle on it."""
        stick = self.stick()
        await export(self.family.nodes[name], {"to": to, "out": str(stick), **more}, lambda _progress: None)
        return stick

    async def take(self, name: str, *files: Path, **more: object) -> dict[str, object]:
        """Import; the answer goes on a stick of its own, ``answer``."""
        answer = self.stick()
        asked = {"files": [str(each) for each in files], "out": str(answer), **more}
        return {**await import_(self.family.nodes[name], asked, lambda _progress: None), "answer": answer}

    async def round(self, name: str, to: str) -> None:
        """There and back."""
        told = await self.take(to, await self.export(name, to))
        await self.take(name, Path(str(told["answer"])))


def noise(count: int, seed: int) -> str:
    """Characters that no compression makes shorter."""
    return "".join(map(chr, Random(seed).choices(range(0x4E00, 0x9C20), k=count)))


def assert_clear(fault: ReplicationError) -> None:
    """One line that says what is wrong, and what to do."""
    assert str(fault)
    assert str(fault).isprintable()
    assert fault.hint.isprintable()
    assert fault.hint, str(fault)

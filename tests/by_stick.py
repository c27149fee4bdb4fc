"""A machine that has no line, and what is carried between it and the unit that is to be its parent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from node import carrying, joining
from node.commands.carrying import import_
from node.commands.granting import approve_request, look_at_request
from node.config import AtRest, Schedule
from node.local import Node
from tests.lives import Family

PARENT, CHILD, KNOWN = "hue.vn", "huong-thuy.hue.vn", "phu-vang.hue.vn"
NAME = "Thị xã Hương Thủy"


def silent(_progress: object) -> None:
    """Nobody watches."""


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


class Sticks:
    """The new unit's machine, and what is carried between it and its parent."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family, self.folder = family, folder
        self.home = folder / "new"
        folder.mkdir()

    def request(self, unit: str = CHILD, home: Path | None = None, name: str = NAME, at: str = "request") -> Path:
        file = self.folder / at
        joining.request(home or self.home, joining.unit_of(unit, ""), name, file, AtRest())
        return file

    async def look_at(self, file: Path, **more: object) -> dict[str, Any]:
        return await look_at_request(self.family.nodes[PARENT], {"request": encoded(file), **more}, silent)

    async def approve(self, file: Path, at: str = "grant", **more: object) -> dict[str, Any]:
        asked = {"request": encoded(file), "out": str(self.folder / at), **more}
        return await approve_request(self.family.nodes[PARENT], asked, silent)

    async def join(self, at: str = "grant", home: Path | None = None) -> carrying.Imported:
        file, home = self.folder / at, home or self.home
        looked = joining.look(home, file, AtRest())
        settings: dict[str, Any] = {"listen": "", "address": "", "schedule": Schedule(), "at_rest": AtRest()}
        done = await joining.join(home, file, looked, None, silent, **settings)
        (self.folder / "answer").unlink(missing_ok=True)
        done.answer.files[0].rename(self.folder / "answer")
        return done

    async def take_answer(self) -> None:
        asked = {"files": [str(self.folder / "answer")], "out": str(self.folder)}
        await import_(self.family.nodes[PARENT], asked, silent)

    def recorded(self) -> list[tuple[Any, ...]]:
        """What the parent holds of invitations, certificates and acts, but for refusals."""
        return [
            row
            for sql in (
                "SELECT unit, name, request, response FROM _invitation",
                "SELECT unit, epoch FROM _certificate",
                "SELECT act, subject FROM _audit WHERE outcome = 'done'",
            )
            for row in self.family.sql(PARENT, sql)
        ]


async def opened(sticks: Sticks, name: str = CHILD) -> Node:
    """The new unit in the family, from now on."""
    sticks.family.home(name).symlink_to(sticks.home)
    return await sticks.family.open(name)

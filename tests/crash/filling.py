"""Full disks: the dying home on a tmpfs of a few hundred KB, on which so many pages are left.

Role: mount, fill, run, make room, judge.
Reach: bench; root. Invariant: what was mounted is unmounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.actor import Ended, Tell
from tests.crash.bench import DYING, Bench, Struck
from tests.crash.cutting import words_of
from tests.crash.fuses import Fuse

PAGE = 4096
ROOM_BYTES, NEW_ROOM_BYTES = 384 * 1024, 1024 * 1024
"""What the disk has beyond the home as it is before the step; where a database is made, it is written twice."""
FILLER = "filler"


class Filled(Fuse):
    """So many pages are left when the step begins. After a fault there is room, and it tries again if it may."""

    def __init__(self, pages: int, *, tries_again: bool) -> None:
        self.pages, self._tries_again = pages, tries_again
        self._filler = Path()

    def start(self, place: Path) -> None:
        self._filler = place / DYING / FILLER
        fill(self._filler, self.pages)

    def again(self) -> bool:
        if not self._tries_again:
            return False
        self._tries_again = False
        self._filler.unlink()
        return True

    def end(self, tell: Tell) -> None:
        tell("lived")


def fill(filler: Path, pages: int) -> None:
    """Leave so many pages on the file system."""
    disk = os.statvfs(filler.parent)
    size = disk.f_bavail * disk.f_frsize - pages * PAGE
    with filler.open("wb") as file:
        if size > 0:
            os.posix_fallocate(file.fileno(), 0, size)


@contextmanager
def small_disk(home: Path, room: int) -> Iterator[None]:
    """Put a home on a small file system of its own, in place."""
    aside = home.with_name("aside")
    home.rename(aside)
    home.mkdir(mode=0o700)
    size = sum(-(-path.stat().st_size // PAGE) * PAGE for path in aside.rglob("*") if path.is_file()) + room
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(home)], check=True)
    try:
        without_index = shutil.ignore_patterns("*-shm")  # it is made anew, and must find room, too
        shutil.copytree(aside, home, dirs_exist_ok=True, ignore=without_index)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


def unmount_below(folder: Path) -> None:
    """What a worker that was killed has left."""
    for line in Path("/proc/mounts").read_text().splitlines():
        where = line.split(" ")[1]
        if where.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", where], check=False)


def _room(bench: Bench) -> int:
    return NEW_ROOM_BYTES if bench.step.is_new else ROOM_BYTES


class FullDisks:
    """k counts the pages left, twice: the process tries again once there is room, or ends and is started again."""

    name = "full"

    def missing(self) -> str:
        if sys.platform != "linux" or os.geteuid() != 0:
            return "a small tmpfs is mounted for it, as root"
        trial = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
        return "" if trial.returncode == 0 else "mount is forbidden here"

    def places(self, bench: Bench) -> int:
        """Up to where the step finds room enough."""
        least, most = 0, _room(bench) // PAGE
        while least < most:
            pages = (least + most) // 2
            if self._run(bench, pages, tries_again=False).of("fault"):
                least = pages + 1
            else:
                most = pages
        return 2 * (least + 1)

    def _run(self, bench: Bench, pages: int, *, tries_again: bool) -> Ended:
        bench.fresh()
        with small_disk(bench.place / DYING, _room(bench)):
            return bench.live(Filled(pages, tries_again=tries_again))[0]

    def strike(self, bench: Bench, k: int) -> Struck:
        pages, tries_again = (k - 1) // 2, k % 2 == 1
        bench.fresh()
        home = bench.place / DYING
        with small_disk(home, _room(bench)):
            mine, _ = bench.live(Filled(pages, tries_again=tries_again))
            bench.tell_trace(mine)
            met = bool(mine.of("fault"))
            faults = words_of(mine, bench)
            if met and tries_again and mine.raised is not None:
                faults.append("there is room again, and the process does not go on")
            if not met and mine.raised is not None:
                faults.append(f"failed: {mine.raised}")
            (home / FILLER).unlink(missing_ok=True)
            faults += bench.judge(mine.told).faults
        what = f"{pages} pages left, then {'room' if tries_again else 'a new start'}"
        return Struck(bench.step.name, self.name, k, met, faults, what)

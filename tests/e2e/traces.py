"""Where bytes of a value have come to: a node's disk, its log, the memory of its running service.

Role: search all that a node leaves behind for texts that exist nowhere else. Reach: the standard library, zstandard.
Invariant: nothing here knows how the product stores anything. Files and memory are searched as they are, every cell of
the database as SQL gives it (a blob lies in pieces in the file), and whatever looks like a zstd frame unpacked as well.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import zstandard

from tests.e2e.processes import Home

MAGIC = b"\x28\xb5\x2f\xfd"
FRAME_BYTES_MAX = 8 << 20
AT_ONCE = 1 << 20
OVERLAP = 1 << 16
STEM = 4
"""Marks that begin alike are looked for together first: memory is long."""
SHARED_LIBRARY = re.compile(r"/[^ ]*(\.so[.0-9]*|/bin/[^/ ]+)$")

Marks = Mapping[str, str]
"""What is looked for, by name: the beginning that all texts of one kind have in common."""


def met(marks: Marks, data: bytes) -> set[str]:
    """The names of the marks in these bytes, plain, as two-byte text, or packed."""
    found = _met(marks, data)
    at = data.find(MAGIC)
    while at >= 0:
        found |= _met(marks, _unpacked(data, at))
        at = data.find(MAGIC, at + 1)
    return found


def _met(marks: Marks, data: bytes) -> set[str]:
    found: set[str] = set()
    for encoding in ("utf-8", "utf-16-le"):
        stems = {stem for stem in {mark[:STEM] for mark in marks.values()} if stem.encode(encoding) in data}
        found |= {name for name, mark in marks.items() if mark[:STEM] in stems and mark.encode(encoding) in data}
    return found


def _unpacked(data: bytes, at: int) -> bytes:
    """What a frame says that begins there; nothing where it only looked like one."""
    with suppress(zstandard.ZstdError):
        size = zstandard.get_frame_parameters(data[at : at + 18]).content_size
        if 0 < size < FRAME_BYTES_MAX:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data[at : at + size + 1024])
    return b""


def on_disk(marks: Marks, home: Home) -> set[str]:
    """In any file of the home, any cell of its database, and its service's log."""
    files = [path for path in home.path.rglob("*") if stat.S_ISREG(path.lstat().st_mode)]
    assert home.database in files
    assert home.log_path.exists()
    parts = [each.read_bytes() for each in (*files, home.log_path)]
    return set[str]().union(*(met(marks, data) for data in (*parts, *_cells(home))))


def _cells(home: Home) -> Iterator[bytes]:
    """Every value of every table: blobs one by one, the rest of a row together."""
    with closing(sqlite3.connect(f"file:{home.database}?mode=ro", uri=True, timeout=10)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert "_batch" in names
        for name in names:
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                yield from (value for value in row if isinstance(value, bytes))
                yield "\n".join(str(value) for value in row if not isinstance(value, bytes)).encode()


def in_process(marks: Marks, home: Home) -> set[str]:
    """In the memory of the home's running service, and in whatever file that has open, under whatever name."""
    assert home.process is not None
    proc = Path("/proc") / str(home.process.pid)
    found = set[str]().union(*(met(marks, data) for data in _memory(proc)))
    for link in (proc / "fd").iterdir():
        if stat.S_ISREG(link.stat().st_mode):  # a deleted file can be read that way too
            found |= met(marks, link.read_bytes())
    return found


def _memory(proc: Path) -> Iterator[bytes]:
    """Every region that a process can have written to, in pieces that overlap; those never touched are left out."""
    memory = os.open(proc / "mem", os.O_RDONLY)
    try:
        for line in (proc / "maps").read_text().splitlines():
            span, rights, *_rest = line.split()
            if not rights.startswith("r") or (rights.startswith("r-") and SHARED_LIBRARY.search(line)):
                continue
            start, end = (int(each, 16) for each in span.split("-"))
            for at in range(start, end, AT_ONCE):
                with suppress(OSError):  # the kernel's own pages, and what was given back since the list was read
                    data = os.pread(memory, min(AT_ONCE + OVERLAP, end - at), at)
                    if data.count(0) < len(data):
                        yield data
    finally:
        os.close(memory)


def everywhere(marks: Marks, home: Home) -> dict[str, set[str]]:
    return {"disk": on_disk(marks, home), "process": in_process(marks, home)}

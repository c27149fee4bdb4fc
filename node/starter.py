"""The catalogue that a new tree starts with.

Role: read the rows that ``init`` publishes in the root's catalogue scope.
Reach: the standard library and the data file beside the package.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TypeAlias

CatalogRow: TypeAlias = tuple[str, str, str, str, int]
"""(id, kind, code, label, sort)"""


def starter_catalog() -> list[CatalogRow]:
    """The rows in their order: (id, kind, code, label, sort). An id is ``kind-code``, the same in every tree."""
    return list(_load())


@lru_cache(maxsize=1)
def _load() -> tuple[CatalogRow, ...]:
    text = files("node").joinpath("data", "catalog.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple((f"{kind}-{code}", kind, code, label, int(sort)) for kind, code, label, sort in rows)

"""The house has one staircase: node -> sync_engine -> conflict."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REACH: dict[str, set[str]] = {"conflict": set(), "sync_engine": {"conflict"}, "node": {"conflict", "sync_engine"}}
EDGES = {
    "asyncio",
    "grpc",
    "os",
    "random",
    "secrets",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "sqlcipher3",
    "threading",
    "time",
}
GENERATED = {"dongbo"}
"""Generated protobuf is met in sync_engine's codec and in node's services, nowhere else."""
CODEC = {
    "sync_engine/batch.py",
    "sync_engine/bundle.py",
    "sync_engine/enrolling.py",
    "sync_engine/frames.py",
    "node/enrolment.py",
    "node/parent_link.py",
    "node/renewal.py",
    "sync_engine/receipts.py",
    "sync_engine/statements.py",
}
FILES = sorted(path for package in REACH for path in (ROOT / package).rglob("*.py"))


def top_level_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            names.add(statement.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_inward(path: Path) -> None:
    relative = path.relative_to(ROOT)
    package, names = relative.parts[0], top_level_imports(path)
    assert names & REACH.keys() <= REACH[package] | {package}
    assert package == "node" or not names & EDGES
    assert not names & GENERATED or relative.as_posix() in CODEC


def test_a_wrong_arrow_is_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "merge.py"
    wrong.write_text("def late():\n    from node.storage import engine\n    import sqlite3\n")
    assert top_level_imports(wrong) == {"node", "sqlite3"}

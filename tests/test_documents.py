"""What the README and the files for operators say is held to the command line and to the code."""

from __future__ import annotations

import ast
import re
import shutil
from dataclasses import fields
from pathlib import Path

import click
import pytest

from node.cli.main import main
from node.config import AtRest, Ca, Config, Schedule, load

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / name
    for name in (
        *("README.md", "deploy/README.md", "docs/conflicts.md", "docs/at-rest.md"),
        *("docs/security.md", "docs/sticks.md"),
    )
]
SECTIONS = {"schedule", "at_rest", "ca"}
"""Settings that are sections."""


def shell_commands(path: Path) -> list[str]:
    """Every ``dongbo ...`` in a document's code, one a line; lines that go on are joined."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [found.strip() for found in re.findall(r"(?:^|[ `$/])dongbo ([a-z]+\b[^`\n|&]*)", text, re.MULTILINE)]


def command_of(said: str) -> click.Command | None:
    """The command, or the subcommand, that a line runs."""
    words = said.split()
    command = main.commands.get(words[0])
    if isinstance(command, click.Group) and words[1:] and re.fullmatch("[a-z]+", words[1]):
        return command.commands.get(words[1])
    return command


def test_the_documents_hold_commands() -> None:
    assert len(shell_commands(ROOT / "README.md")) > 15
    assert len(shell_commands(ROOT / "deploy" / "README.md")) >= 2
    assert len(shell_commands(ROOT / "docs" / "conflicts.md")) > 10


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_and_option_in_a_document_exists(path: Path) -> None:
    unknown = []
    for said in shell_commands(path):
        command = command_of(said)
        options = re.findall(r"(?<!\S)--[a-z-]+", said)
        known = {each for one in command.params for each in one.opts} if isinstance(command, click.Command) else set()
        if command is None or not set(options) <= known:
            unknown.append(said)
    assert unknown == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_a_document_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    named = re.findall(r"`((?:node|sync_engine|conflict|proto|docs|deploy)/[\w./-]*)`", text)
    missing = [name for name in linked if not (path.parent / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert linked
    assert missing == []


def test_the_readme_links_every_page_for_operators() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#/]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == linked


def test_every_test_that_the_threat_table_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert len(set(named)) > 80
    missing = []
    for file, name in named:
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
        if name not in {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}:
            missing.append(f"{file}::{name}")
    assert missing == []


def test_every_make_target_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert "demo" in targets
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_the_example_settings_are_valid_and_complete(tmp_path: Path) -> None:
    example = ROOT / "deploy" / "node.toml.example"
    shutil.copy(example, tmp_path / "node.toml")
    config = load(tmp_path)
    assert config.schedule == Schedule()
    said = set(re.findall(r"^(\w+) =", example.read_text(encoding="utf-8"), re.MULTILINE))
    assert said == {each.name for kind in (Config, Schedule, AtRest, Ca) for each in fields(kind)} - SECTIONS


def test_the_service_runs_the_program_as_a_user_of_its_own() -> None:
    unit = (ROOT / "deploy" / "dongbo.service").read_text(encoding="utf-8")
    lines = ["User=dongbo", "Restart=always", "KillSignal=SIGTERM", "ProtectSystem=strict", "NoNewPrivileges=true"]
    for line in (*lines, "UMask=0077", "LimitCORE=0"):
        assert re.search(rf"^{line}$", unit, re.MULTILINE)


def test_the_nightly_backup_and_the_secret_fit_the_service() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "deploy").rglob("*") if path.is_file()}
    command = re.search(r"dongbo (backup .*)'$", texts["dongbo-backup.service"], re.MULTILINE)
    assert command is not None
    options = re.findall(r"(?<!\S)--[a-z-]+", command[1])
    assert set(options) <= {each for one in main.commands["backup"].params for each in one.opts}
    assert "/var/backups/dongbo" in texts["secret.conf"]
    assert "OnCalendar=" in texts["dongbo-backup.timer"]

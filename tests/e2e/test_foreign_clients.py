"""A program with a busy timeout of a second writes on, whatever our node is doing to the same file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import updates
from tests.e2e.conftest import DISTRICT, PROVINCE
from tests.e2e.processes import Cluster, Home, until
from tests.e2e.writing import write_members

pytestmark = pytest.mark.alone

ROWS = 20_000


@contextmanager
def updating(home: Home, unit: str, stop: Path) -> Iterator[dict[str, Any]]:
    """A foreign client at work for as long as the block lasts; what it met is there afterwards."""
    met: dict[str, Any] = {}
    program = [sys.executable, str(updates.__file__), str(home.database), unit, str(stop)]
    client = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        yield met
        stop.touch()
        out, err = client.communicate(timeout=30)
        assert client.returncode == 0, err
        met.update(json.loads(out))
    finally:
        if client.poll() is None:
            client.kill()
            client.communicate()


def test_a_client_with_a_busy_timeout_of_a_second_is_never_refused_while_20_000_rows_are_sealed_and_received(
    line: Cluster, tmp_path: Path
) -> None:
    district, province = line[DISTRICT], line[PROVINCE]
    line.start(PROVINCE)
    write_members(district, 100, seed=1)
    district.sync()
    district.configure(on_change="true")
    write_members(district, ROWS, seed=2, at_once=5_000)

    with ExitStack() as clients:
        stop = tmp_path / "stop"
        met = {home.unit: clients.enter_context(updating(home, DISTRICT, stop)) for home in (district, province)}
        district.start()
        count = f"SELECT count(*) FROM member WHERE unit = '{DISTRICT}'"
        until("all rows are there", lambda: province.sql(count) == [(ROWS + 100,)], 90, line.tails)

    for unit, found in met.items():
        print(f"\n{unit}: {found['updates']} updates, longest wait {found['longest_s']} s")
        assert found["refused"] == []
        assert found["updates"] > 50

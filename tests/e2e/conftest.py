"""One tree, made once through the command line; each test works on a copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Cluster

CENTRE, PROVINCE, DISTRICT, SECOND = "vn", "hue.vn", "phu-vang.hue.vn", "phong-dien.hue.vn"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Centre, province and two districts: init, invite, join, run. At rest."""
    with Cluster(tmp_path_factory.mktemp("tree")) as made:
        centre = made.root(CENTRE, "Trung ương")
        centre.start()
        province = made.join(centre, "hue", "Thành phố Huế", listens=True)
        province.start()
        made.join(province, "phu-vang", "Huyện Phú Vang")
        made.join(province, "phong-dien", "Thị xã Phong Điền")
        province.sync()
        province.stop()
        centre.stop()
    return made


@pytest.fixture
def line(template: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """Centre, province and one district of this test's own, at rest."""
    with template.copy(tmp_path, CENTRE, PROVINCE, DISTRICT) as made:
        yield made


@pytest.fixture
def tree(template: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """A tree of this test's own, at rest."""
    with template.copy(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(template: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A tree for a whole module whose tests leave it as it was; centre and province run."""
    with template.copy(tmp_path_factory.mktemp("shared")) as made:
        made.start(CENTRE, PROVINCE)
        yield made

"""What no commit may hold: a package registry's address, one machine's path, a secret, a file of two ideas."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
REGISTRIES = ["pypi" + r"\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs", "deb" + r"\.debian\.org"]
PATHS = ["/" + "work/", "/" + "home/", "/" + "root/"]
SECRETS = ["BEGIN " + "(EC )?PRIVATE KEY"]
LINES_MAX = 500


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_names_a_registry_a_machine_or_a_secret() -> None:
    found = []
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        for pattern in (*REGISTRIES, *PATHS, *SECRETS):
            if re.search(pattern, text):
                found.append(f"{path.relative_to(ROOT)}: {pattern}")
    assert not found


def test_the_lock_is_pinned_by_hash() -> None:
    for name in ("requirements.lock", "requirements-bootstrap.lock", "requirements-fuzz.lock"):
        text = (ROOT / name).read_text()
        pins = re.findall(r"^\S+==\S+", text, re.MULTILINE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins)
        assert "://" not in text


def test_no_module_holds_two_ideas() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in tracked()
        if path.suffix == ".py"
        and "_pb2" not in path.name
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    ]
    assert not long

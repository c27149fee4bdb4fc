"""Runs buf over the .proto files where node.js is present: lint, and no change that breaks stored batches.

``make proto-check`` calls this. Without node.js it says so and passes: generated-code drift is checked in any case.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUF = ROOT / "node_modules" / ".bin" / "buf"
VERSION = "1.75.0"


def main() -> int:
    if shutil.which("npm") is None:
        print("buf: skipped, node.js is not here")
        return 0
    if not BUF.exists():
        install = ["npm", "install", "--no-save", "--no-package-lock", "--silent", f"@bufbuild/buf@{VERSION}"]
        if subprocess.run(install, cwd=ROOT, capture_output=True).returncode:
            print("buf: skipped, it could not be installed")
            return 0
    if subprocess.run([BUF, "lint"], cwd=ROOT / "proto").returncode:
        return 1
    known = subprocess.run(["git", "cat-file", "-e", "HEAD:proto/buf.yaml"], cwd=ROOT, capture_output=True).returncode
    if known or shutil.which("git") is None:
        return 0
    return subprocess.run(
        [BUF, "breaking", "--against", "../.git#ref=HEAD,subdir=proto"], cwd=ROOT / "proto"
    ).returncode


if __name__ == "__main__":
    sys.exit(main())

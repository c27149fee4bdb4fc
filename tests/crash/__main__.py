"""``python -m tests.crash``: starts itself again under the shim, where there is a C compiler."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from tests.crash import shim


def main() -> int:
    if not shim.is_loaded() and not shim.missing():
        shim.start_again(Path(tempfile.mkdtemp(prefix="dongbo-crash-shim-")), "tests.crash", sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed
    try:
        from tests.crash import command  # not before: it imports everything

        return command.main()
    finally:
        shim.remove()


if __name__ == "__main__":
    sys.exit(main())

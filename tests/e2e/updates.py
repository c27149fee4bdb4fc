"""A program that knows nothing of us: small updates, one after another, with a busy timeout of one second.

Run as a process: database, unit, stop file. Prints a JSON document: how many, the longest wait, what it was refused.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path


def main(database: str, unit: str, stop: str) -> None:
    connection = sqlite3.connect(database, timeout=1.0, isolation_level=None)
    keys = [key for (key,) in connection.execute("SELECT id FROM member WHERE unit = ? LIMIT 50", (unit,))]
    done, longest, refused = 0, 0.0, []
    print("ready", flush=True)
    while not Path(stop).exists():
        began = time.monotonic()
        try:
            connection.execute(
                "UPDATE member SET note = ? WHERE unit = ? AND id = ?", (f"lần {done}", unit, keys[done % len(keys)])
            )
        except sqlite3.OperationalError as error:
            refused.append(str(error))
        longest = max(longest, time.monotonic() - began)
        done += 1
        time.sleep(0.005)
    print(json.dumps({"updates": done, "longest_s": round(longest, 3), "refused": refused}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What bulk entry says: load and dump."""

from __future__ import annotations

ENGLISH: dict[str, str] = {}

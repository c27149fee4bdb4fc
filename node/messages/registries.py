"""What is said of registry versions."""

from __future__ import annotations

ENGLISH: dict[str, str] = {}

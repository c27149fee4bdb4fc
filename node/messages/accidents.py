"""What is said of accidents and of a row's life: the brake, release, undo, history."""

from __future__ import annotations

ENGLISH: dict[str, str] = {}

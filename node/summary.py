"""What a session came to, as operators are told it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Summary:
    """What a session came to; the keys of ``sync --json``."""

    peer: str
    sent_batches: int = 0
    sent_bytes: int = 0
    received_batches: int = 0
    received_bytes: int = 0
    applied_rows: int = 0
    conflicts: int = 0
    seconds: float = 0.0
    refused: list[str] = field(default_factory=list)

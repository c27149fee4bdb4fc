"""Writes, registers and merge policies: pure, and importing nothing else of ours."""

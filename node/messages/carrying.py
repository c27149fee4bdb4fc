"""What is said of bundles, which are carried by hand."""

from __future__ import annotations

ENGLISH = {
    "status.by_stick": "by stick,",
    "status.stick": "last bundle written {out}, last one that came {came}",
    "status.stick.waits": "{batches} batches that it has not signed for yet: they are in every bundle until it does",
    "state.stick.stale": "silent for a month",
    "export.done": "Written for {unit}: {batches} batches, {size}.\n  {files}",
    "export.next": "Carry it to {unit}. There: dongbo import FOLDER. Carry the answer back, and import it here:"
    " until then nothing counts as delivered, and the next export holds it again.",
    "import.done": "From {unit}: {batches} batches, {rows} records changed, {conflicts} conflicts.",
    "import.old": "{unit} has said newer things since it wrote this: of what it has received this tells nothing.",
    "import.missing": "Parts that are not here, of bundle {line}. What needs them waits: import them when they come,"
    " or have a new bundle written.",
    "import.refused": "Not taken: {line}",
    "import.left": "Left alone: {line}",
    "import.answer": "The answer for {unit}: {batches} batches, {size}.\n  {files}",
    "import.next": "Carry it back to {unit}, and import it there.",
}

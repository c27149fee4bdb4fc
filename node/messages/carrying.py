"""What is said of bundles, which are carried by hand."""

from __future__ import annotations

ENGLISH = {
    "status.by_stick": "by stick,",
    "status.stick": "last bundle written {out}, last one that came {came}",
    "status.stick.waits": "{batches} batches that it has not signed for yet: they are in every bundle until it does",
    "state.stick.stale": "silent for a month",
    "export.done": "Written for {unit}, batches: {batches}, size: {size}.\n  {files}",
    "export.next": "1. Eject the stick, and carry it to {unit}.\n"
    "2. There: dongbo import FOLDER, which writes an answer on the same stick.\n"
    "3. Carry the stick back. Here: dongbo import FOLDER. Until then nothing counts as delivered.\n"
    "If the stick is lost, run this again: the next one holds everything again.",
    "import.reading": "checking {file}: {done} ...",
    "import.done": "Taken in from {unit}, batches: {batches}, records changed: {rows}, conflicts: {conflicts}.",
    "import.conflicts": "'dongbo conflicts' shows what needs a decision.",
    "import.old": "{unit} has said newer things since it wrote this: of what it has received this tells nothing. Look"
    " whether there is a newer file; if not, have {unit} export again.",
    "import.missing": "Parts that are not here, of bundle {line}. What needs them waits: import them when they come,"
    " or have a new bundle written.",
    "import.refused": "Not taken: {line}",
    "import.left": "Left alone: {line}",
    "import.answer": "The answer for {unit} is written, batches: {batches}, size: {size}.\n  {files}",
    "import.next": "Eject the stick, carry it back to {unit}, and run 'dongbo import FOLDER' there: until then nothing"
    " counts as delivered.",
    "import.no_hurry": "Nothing new has come, and the answer holds no edits: it need not be carried before there are"
    " some.",
    "import.none": "there is no bundle for {unit} there",
    "import.none.others": "there is no bundle for {unit} there; files for other units: {others}",
    "import.none.hint": "nothing was taken; look whether this is the right stick, and whether 'dongbo export --to"
    " {unit}' or 'dongbo import' was run where it comes from",
    "import.all_left.hint": "nothing was taken; look at each of these files, or have new ones written",
}

"""What is said where a unit joins by stick."""

from __future__ import annotations

ENGLISH = {
    "request.done": "The request of {unit} ({name}) is in {file}. Its words:",
    "request.next": "Carry the file to the unit above. There: dongbo approve FILE --out GRANT. Its operator telephones"
    " and reads out the words that stand there: say yes only if they are these. Then carry the grant back here, and"
    " run: dongbo join --grant GRANT",
    "approve.asks": "{unit} ({name}) asks to join. Telephone a person whom you know there. The words of its request:",
    "approve.asks.recover": "{unit} ({name}) asks to begin again on another machine, which takes the place of the one"
    " that it had. Telephone a person whom you know there. The words of its request:",
    "approve.needs_out": "--out FILE says where the grant goes",
    "approve.needs_file": "--out, --name, --recover and --yes are for a request that came by stick: name its FILE",
    "join.which": "name an invitation, or --request FILE, or --grant FILE: one of the three",
    "join.request_needs": "--request needs --unit and --name",
    "join.not_with": "{option} does not go with {what}",
    "approve.compare": "Do these words stand at the other side too?",
    "approve.written": "{unit} is certified. The grant is in {file} ({size}).",
    "approve.more": "More than fits into one file: the rest comes with the next bundle, after the answer is here.",
    "approve.next": "Carry it to {unit}. There: dongbo join --grant FILE. It shows the words below: read them out when"
    " its operator telephones. Import the answer that comes back: until then nothing counts as delivered.",
    "grant.says": "{parent} has certified {unit} ({name}). Telephone a person whom you know at {parent}.",
    "grant.compare": "Do these words stand at the other side too, both lines?",
    "grant.next": "Carry this back to {parent}, and import it there: dongbo import FILE. From then on 'dongbo export"
    " --to {parent} --out FOLDER' and 'dongbo import FOLDER' keep this unit in step.",
    "words.tree": "The words of the tree:",
    "words.grant": "The words of this grant:",
    "words.not_compared": "nobody has said that the words are the same at the other side: nothing was done",
    "words.needs_yes": "compare them over the telephone; if they are the same, run this again with --yes",
    "words.differ": "the words are not the same at the other side: nothing was done",
    "words.differ.hint": "the file here is not the one that was written there: have it written and carried once more",
}

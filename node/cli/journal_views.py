"""Conflicts and held values in the terminal: what each of them shows, for lists, for one, and side by side.

Role: the JSON of ``conflicts`` and ``quarantine`` to lines and tables.
Reach: rich, node.cli.views, node.messages, node.figures.
Invariant: a value is printed as text: no colours, markup or control codes of its own reach the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from node.cli.views import console, show, value_of
from node.figures import day_and_minute, number
from node.messages import plain, say
from sync_engine.merge import ALIVE, TWIN

ROWS_SHOWN = 50
PART_GAP = "; "
STANDING = {
    "open": ("conflict.shown", "conflict.waits"),
    "overwritten": ("conflict.stands", "conflict.replaced"),
    TWIN: ("conflict.twin_shown", "conflict.twin_waits"),
}
BY_RULE = ("conflict.won", "conflict.lost")
BY_PERSON = ("conflict.was_shown", "conflict.waited")
"""A person may have decided for neither."""
COLUMN_MIN = 24
"""A write narrower than this breaks a name, a unit or a time in two."""
LABEL_MAX = 26

RULES = {"latest", "earliest", "superior", "local", "max", "min", "union", "review", "delete", "keep"}
DECISIONS = {"resolve", "overturn", "release", "refuse", "rename"}


# -- values, people, standing -----------------------------------------------------------------------------------------


def parts_of(entry: Mapping[str, Any], value: Any) -> list[tuple[str, str]]:
    """A value as (label, text), one pair for each field of a group and each field of a twin's row."""
    field = entry["field"]
    if field == ALIVE:
        return [("", say("conflict.kept" if value else "conflict.deleted"))]
    if isinstance(value, dict):
        return [(plain(label), plain(value_of(each))) for label, each in value.items() if each is not None]
    if ":" in field:
        element = plain(field.partition(":")[2])
        return [("", say("conflict.present" if value else "conflict.absent", element=element))]
    if is_group(entry) and isinstance(value, list):
        return [(label, plain(value_of(each))) for label, each in zip(part_labels(entry), value, strict=False)]
    return [("", plain(value_of(value)))]


def value_text(entry: Mapping[str, Any], value: Any) -> str:
    """A value on one line."""
    texts = [f"{label}: {text}" if isinstance(value, dict) else text for label, text in parts_of(entry, value)]
    return PART_GAP.join(texts) or value_of(None)


def is_group(entry: Mapping[str, Any]) -> bool:
    return len(entry["fields"]) > 1


def takes_value(entry: Mapping[str, Any]) -> bool:
    """Whether another value can be typed: not where the question is whether something is there."""
    return entry["field"] not in (ALIVE, TWIN) and ":" not in entry["field"]


def part_labels(entry: Mapping[str, Any]) -> list[str]:
    """What people call the fields of a group."""
    labels: Sequence[str] = entry.get("labels") or entry["fields"]
    return [plain(label) for label in labels]


def title_of(entry: Mapping[str, Any]) -> str:
    """What is contested: the field's label, or what happened to the row."""
    if entry["field"] in (ALIVE, TWIN):
        return say("conflict.alive" if entry["field"] == ALIVE else "conflict.twin")
    return plain(str(entry["label"]))


def who_of(entry: Mapping[str, Any]) -> str:
    """Whose record it is."""
    row = entry["row"]
    place = {"table": entry["table"], "key": plain(entry["key"]), "unit": entry["unit"]}
    told = ", ".join(plain(value_of(value)) for value in row.values() if value is not None) if row else ""
    return say("conflict.who", person=told, **place) if told else say("conflict.nobody", **place)


def standing_of(conflict: Mapping[str, Any], write: Mapping[str, Any]) -> str:
    """What became of a write: shown, waiting, won, lost."""
    still_open = conflict["state"] == "open"
    kind = TWIN if still_open and conflict["field"] == TWIN else conflict["state"]
    words = STANDING.get(kind, BY_PERSON if conflict["decided"] else BY_RULE)
    return say(words[0 if write["won"] else 1])


def state_of(conflict: Mapping[str, Any]) -> str:
    elsewhere = conflict["state"] == "open" and not conflict["may_settle"]
    return say("conflict.open_elsewhere" if elsewhere else f"conflict.{conflict['state']}")


def rule_of(conflict: Mapping[str, Any]) -> str:
    policy = conflict["policy"]
    return say(f"conflict.rule.{policy}") if policy in RULES else say("conflict.rule", policy=policy)


def outcome(conflict: Mapping[str, Any], value: Any) -> str:
    """What a decision came to, in words."""
    if conflict["field"] == ALIVE:
        return say("decided.kept" if value else "decided.deleted")
    if conflict["field"] == TWIN:
        return say("decided.twin", value=plain(str(value)))
    return say("decided.value", label=title_of(conflict), value=value_text(conflict, value))


def decided_lines(entry: Mapping[str, Any]) -> list[str]:
    """Who decided, when and why; nothing where nobody has."""
    decided = entry.get("decided")
    if not decided:
        return []
    act = decided["act"] if decided["act"] in DECISIONS else "resolve"
    lines = [say(f"conflict.decided.{act}", who=decider(decided), at=day_and_minute(decided["at"]))]
    if act in ("resolve", "overturn") and "value" in decided:
        lines = [say("conflict.decided.what", decided=lines[0].rstrip("."), what=outcome(entry, decided["value"]))]
    return [*lines, say("conflict.why", why=plain(decided["why"]))] if decided["why"] else lines


def decider(decided: Mapping[str, Any]) -> str:
    return ", ".join(plain(each) for each in (decided["person"], decided["unit"]) if each)


# -- the journal ------------------------------------------------------------------------------------------------------


def show_conflicts(found: Sequence[Mapping[str, Any]], *, nothing: str) -> None:
    """The journal for people: newest first; ``nothing`` is the sentence for an empty one."""
    screen = console()
    if not found:
        show(screen, Text(say(nothing)))
        return
    for each in found[:ROWS_SHOWN]:
        show(screen, _block(each), Text())
    if len(found) > ROWS_SHOWN:
        show(screen, Text(say("conflicts.more", count=number(len(found) - ROWS_SHOWN))))
    if any(each["state"] == "open" and each["may_settle"] for each in found):
        show(screen, Text(say("conflicts.next")))


def show_conflict(conflict: Mapping[str, Any]) -> None:
    """One conflict with its rule, its decision, and what can be done."""
    lines: list[RenderableType] = [_block(conflict)]
    still_open, field = conflict["state"] == "open", conflict["field"]
    if still_open and not conflict["may_settle"]:
        lines.append(Text("\n" + say("conflict.not_here")))
    elif conflict["may_settle"] and (still_open or field != TWIN):
        kind = "new_id" if field == TWIN else "value" if takes_value(conflict) else "keep"
        how = say(f"conflict.how.{kind}", number=conflict["id"])
        lines.append(Text("\n" + say("conflict.settle" if still_open else "conflict.overturn", how=how)))
    show(console(), *lines)


def _block(conflict: Mapping[str, Any]) -> Group:
    still_open = conflict["state"] == "open"
    head = Text(f"{conflict['id']}  ", style="bold")
    head.append(state_of(conflict), style="not bold yellow" if still_open else "not bold green")
    lines: list[RenderableType] = [head, Text("  " + who_of(conflict))]
    lines.append(Text("  " + title_of(conflict), style="bold"))
    lines.append(Text("  " + rule_of(conflict), style="dim"))
    lines.append(_writes(conflict))
    lines += [Text("  " + line) for line in decided_lines(conflict)]
    return Group(*lines)


def _writes(conflict: Mapping[str, Any]) -> Table:
    """Each write with its number, which is the same at every node."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for write in conflict["writes"]:
        body = Text(value_text(conflict, write["value"]), style="bold")
        body.append("\n" + _by(write), style="not bold dim")
        style = "green" if write["won"] else ""
        table.add_row(Text(f"    {write['n']}"), Text(standing_of(conflict, write), style=style), body)
    return table


def _by(write: Mapping[str, Any]) -> str:
    unit = f"{write['origin']} {say('review.level', level=write['level'])}"
    told = (unit, plain(write["person"] or ""), day_and_minute(write["at"]))
    return ", ".join(each for each in told if each)


# -- side by side -----------------------------------------------------------------------------------------------------


def side_by_side(conflict: Mapping[str, Any], width: int) -> list[Table]:
    """The writes as columns; more than the screen is wide for go below."""
    writes = conflict["writes"]
    fit = max(1, (width - LABEL_MAX) // COLUMN_MIN)
    rows = -(-len(writes) // fit)
    each = -(-len(writes) // rows)  # four on a screen for three: two and two
    return [_columns(conflict, writes[start : start + each]) for start in range(0, len(writes), each)]


def _columns(conflict: Mapping[str, Any], writes: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.ROUNDED, padding=(0, 1))
    table.add_column(max_width=LABEL_MAX, overflow="fold", style="dim")
    for write in writes:
        style = "bold green" if write["won"] else "bold"
        table.add_column(
            Text(f"{write['n']}  {standing_of(conflict, write)}"), header_style=style, ratio=1, overflow="fold"
        )
    values = [parts_of(conflict, write["value"]) for write in writes]
    many = max(map(len, values), default=0) > 1
    labels = list(dict.fromkeys(label for parts in values for label, _text in parts))
    for label in labels:
        texts = [dict(parts).get(label, value_of(None)) for parts in values]
        differ = len(set(texts)) > 1
        style = "bold" if differ or not many else "dim"
        table.add_row(Text(label or say("review.row.value")), *(Text(text, style=style) for text in texts))
    table.add_section()
    for key, tell in (("unit", _unit), ("by", _person), ("when", _when)):
        table.add_row(Text(say(f"review.row.{key}")), *(Text(tell(write)) for write in writes))
    return table


def _unit(write: Mapping[str, Any]) -> str:
    return f"{write['origin']}\n{say('review.level', level=write['level'])}"


def _person(write: Mapping[str, Any]) -> str:
    return plain(write["person"] or value_of(None))


def _when(write: Mapping[str, Any]) -> str:
    return day_and_minute(write["at"])


# -- values held aside ------------------------------------------------------------------------------------------------


def show_held(found: Sequence[Mapping[str, Any]]) -> None:
    """What was held aside, why, and what is shown meanwhile."""
    screen = console()
    if not found:
        show(screen, Text(say("quarantine.none")))
        return
    for each in found[:ROWS_SHOWN]:
        show(screen, _held_block(each), Text())
    if len(found) > ROWS_SHOWN:
        show(screen, Text(say("quarantine.more", count=number(len(found) - ROWS_SHOWN))))
    if any(each["may_decide"] for each in found):
        show(screen, Text(say("quarantine.next")))


def _held_block(held: Mapping[str, Any]) -> Group:
    head = Text(f"{held['id']}  ", style="bold")
    head.append(say(f"held.{held['reason']}"), style="not bold yellow")
    if not held["may_decide"]:
        head.append(f"; {say('held.not_here')}", style="not bold dim")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    body = Text(value_text(held, held["value"]), style="bold").append("\n" + _by(held), style="not bold dim")
    table.add_row(Text("    " + say("held.value")), body)
    table.add_row(Text("    " + say("held.shown")), Text(value_text(held, held["shown"])))
    return Group(head, Text("  " + who_of(held)), Text("  " + title_of(held), style="bold"), table)

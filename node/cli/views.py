"""What people see in a terminal: tables and sentences, nothing a program should parse.

Role: status and units in words, times as Vietnamese readers write them.
Reach: rich, node.messages, node.figures.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from node.figures import clock, day, day_and_time, is_today, number
from node.messages import plain, say
from sync_engine.limits import CLOCK_SKEW_MS_MAX

COLOURS = {
    "ok": "green",
    "late": "yellow",
    "never": "yellow",
    "failing": "red",
    "stale": "red",
    "revoked": "bold red",
}
WATCH_S = 2.0
BRAKES_SHOWN = 5
WITHHELD_SHOWN = 5
BACKUP_DAYS_MAX = 7
"""A backup that is older says that something stopped making them."""
NEW_LIFE_DAYS = 7
"""For so long people are told what happened to this machine."""
PIPE_WIDTH = 120
"""Where there is no terminal, lines are not broken at 80: names of units are long."""

ISO_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def console() -> Console:
    """Plain text in a pipe, colours on a terminal; nothing is coloured by guessing, or because a text asks for it."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)


def show(screen: Console, *lines: RenderableType) -> None:
    """Lines as they are: broken where the terminal ends, without a tail of spaces where there is none."""
    if screen.is_terminal:
        screen.print(*lines, sep="\n")
        return
    with screen.capture() as captured:
        screen.print(*lines, sep="\n")
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def moment(milliseconds: int | None) -> str:
    """A time of day, with its date where that is not today."""
    if milliseconds is None:
        return say("never")
    return clock(milliseconds) if is_today(milliseconds) else day_and_time(milliseconds)


def show_status(read: Callable[[], dict[str, Any]], *, tree: bool, watch: bool) -> None:
    """``status`` for people; ``watch`` repeats it until Ctrl-C."""
    screen = console()
    if not watch:
        show(screen, _status(read(), tree=tree))
        return
    try:
        with Live(_status(read(), tree=tree), console=screen, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(WATCH_S)
                live.update(_status(read(), tree=tree), refresh=True)
    except KeyboardInterrupt:
        return


def _status(status: Mapping[str, Any], *, tree: bool) -> RenderableType:
    unit, parent = status["unit"], status["parent"]
    title = Text(plain(unit["name"]), style="bold").append(f"  {unit['id']}  ({unit['level']})", style="not bold")
    body = Table.grid(padding=(0, 2))
    body.add_column(style="dim", no_wrap=True)
    body.add_column()
    body.add_row("  " + say("status.service"), say("status.runs" if status["running"] else "status.rests"))
    records = ", ".join(f"{table} {number(count)}" for table, count in status["records"].items())
    body.add_row("  " + say("status.records"), records)
    body.add_row("  " + say("status.parent"), _parent(parent))
    if parent is not None:
        body.add_row("  " + say("status.to_send"), _to_send(status))
        body.add_row("  " + say("status.confirmed"), _confirmed(status))
    if status["at_rest"] == "encrypted":
        body.add_row("  " + say("status.at_rest"), say("status.encrypted"))
    if status["last_backup_at"] is not None:
        body.add_row("  " + say("status.backup"), moment(status["last_backup_at"]))
    for alarm in status["alarms"]:
        body.add_row(
            Text("  " + say("status.alarm"), style="bold red"), Text(say("verify.alarm", **alarm), style="red")
        )
    for line in attention(status):
        body.add_row(Text("  " + say("status.look"), style="bold yellow"), Text(line, style="yellow"))
    lines: list[RenderableType] = [title, body]
    if status["children"]:
        lines += [Text(), _tree(status) if tree else _children(status["children"])]
    return Group(*lines)


def _parent(parent: Mapping[str, Any] | None) -> Text:
    if parent is None:
        return Text(say("status.root"))
    text = Text(f"{parent['unit']} ({parent['address']}): " if parent["address"] else f"{parent['unit']}: ")
    stick = parent["by_hand"]
    if stick["lives_by_stick"]:
        return text.append(_by_hand(stick))
    text.append(say(f"state.{parent['state']}"), style=COLOURS.get(parent["state"], ""))
    text.append(", " + say("status.last", at=moment(parent["last_sync_at"])))
    if parent["last_error"]:
        failed = say("status.failed", at=moment(parent["last_error_at"]), error=parent["last_error"])
        text.append("\n" + failed, style="red")
    if parent.get("refused"):  # when it asks next changes nothing
        return text
    if planned := _next_call(parent, time.time_ns() // 1_000_000):
        text.append("\n" + planned)
    return text


def _by_hand(stick: Mapping[str, Any]) -> Text:
    """A neighbour that is reached by stick: how it stands, when something left and came, and what is not confirmed."""
    state = stick["state"] or "never"
    key = "state.stick.stale" if state == "stale" else f"state.{state}"
    text = Text(say("status.by_stick") + " ").append(say(key), style=COLOURS.get(state, ""))
    text.append("\n" + say("status.stick", out=moment(stick["written_at"]), came=moment(stick["came_at"])))
    if stick["unconfirmed_batches"]:
        text.append("\n" + say("status.stick.waits", batches=number(stick["unconfirmed_batches"])))
    return text


def _next_call(parent: Mapping[str, Any], now_ms: int) -> str:
    """When this node calls by itself, and why then."""
    at, why = parent["next_sync_at"], parent["next_sync_why"]
    if at is None:
        shut = parent["paused_until"]
        return "" if shut is None else say("status.shut", at=moment(shut))
    if at <= now_ms:
        return say("status.calls")
    return say(f"status.next.{why}", at=moment(at), within=_within(at - now_ms))


def _within(milliseconds: int) -> str:
    seconds = -(-milliseconds // 1000)
    unit, count = ("minute", round(seconds / 60)) if seconds >= 60 else ("second", seconds)
    return say(f"within.{unit}" if count == 1 else f"within.{unit}s", count=number(count))


def _to_send(status: Mapping[str, Any]) -> str:
    pending, batches = status["pending_changes"], status["unsent_batches"]
    if not pending and not batches:
        return say("status.nothing")
    return say("status.unsent", pending=number(pending), batches=number(batches))


def _confirmed(status: Mapping[str, Any]) -> str:
    """What those above have signed that they hold of this unit's batches."""
    parent, centre = status["confirmed"]["parent"], status["confirmed"]["centre"]
    if not parent["of"]:
        return say("confirmed.nothing")
    above = [parent] if parent["unit"] == centre["unit"] else [parent, centre]
    return "; ".join(map(_confirmed_by, above))


def _confirmed_by(told: Mapping[str, Any]) -> str:
    who = "confirmed.who" if "." in told["unit"] else "confirmed.centre"
    name, of = say(who, level=told["level"], unit=told["unit"]), number(told["of"])
    if not told["batches"]:
        return say("confirmed.none.one" if told["of"] == 1 else "confirmed.none", name=name, of=of)
    how = "one" if told["of"] == 1 else "all" if told["batches"] == told["of"] else "part"
    return say(f"confirmed.{how}", name=name, batches=number(told["batches"]), of=of, at=moment(told["at"]))


def _withheld(status: Mapping[str, Any]) -> list[str]:
    """Units of which something is kept back on the way, or nothing comes."""
    lines = []
    for each in status["units"]:
        name = _named(each["name"], each["unit"])
        relay = _named(each["relay_name"], each["relay"])
        if each["withheld"]:
            count, since = number(each["missing_batches"]), moment(each["missing_since"])
            lines.append(say("look.withheld", relay=relay, unit=name, count=count, since=since))
        elif each["silent_since"] is not None:
            since = moment(each["silent_since"])
            lines.append(say("look.silent", relay=relay, unit=name, since=since))
    more = len(lines) - WITHHELD_SHOWN
    return lines if more <= 0 else [*lines[:WITHHELD_SHOWN], say("look.withheld.more", count=number(more))]


def _named(name: str, unit: str) -> str:
    return unit if name == unit else f"{name} ({unit})"


def _days_since(milliseconds: int | None) -> int:
    """None where it never was: who makes no backups here makes them otherwise, or does not want to be told."""
    return 0 if milliseconds is None else (time.time_ns() // 1_000_000 - milliseconds) // (24 * 3600 * 1000)


def attention(status: Mapping[str, Any]) -> list[str]:
    """What needs a person, one sentence each with what to do."""
    lines = []
    if (days := _days_since(status["last_backup_at"])) >= BACKUP_DAYS_MAX:
        lines.append(say("look.backup", days=days))
    lines += map(_brake, status["brakes"][:BRAKES_SHOWN])
    if more := status["brakes"][BRAKES_SHOWN:]:
        lines.append(say("brake.more", count=len(more), unit=more[0]["unit"]))
    lines += _withheld(status)
    lines += [say(f"look.registry.{each['standing']}", **each) for each in status["newer_registries"]]
    if status["conflicts_open"]:
        lines.append(say("look.conflicts", count=status["conflicts_open"]))
    if status["held"]:
        lines.append(say("look.held", count=status["held"]))
    if status["waiting_batches"]:
        causes = ", ".join(dict.fromkeys(cause for each in status["waiting_for"] for cause in each["for"]))
        lines.append(say("look.waiting", count=status["waiting_batches"], causes=causes))
    if status["damaged_batches"]:
        lines.append(say("look.damaged", count=status["damaged_batches"]))
    lines += dict.fromkeys(map(told_of_left, status["left_streams"]))
    lines += _refused(status) or _life(status)
    lines += _keys(status) + _former_machines(status)
    if status.get("counts_with_next_edit"):
        lines.append(say("look.next_edit"))
    lines += [say("look.held_back", **each) for each in status.get("held_back", [])]
    lines += [say("look.certificates", **each) for each in status.get("certificates_waiting", [])]
    lines += [say("look.set_aside", **each) for each in status["set_aside"][:5]]
    lines += [_caps(each) for each in status.get("caps", [])[:5]]
    parent = status["parent"]
    skew = parent["clock_skew_ms"] if parent else None
    if skew is not None and abs(skew) > CLOCK_SKEW_MS_MAX:
        lines.append(say("look.clock", minutes=round(abs(skew) / 60_000)))
    return lines


def _keys(status: Mapping[str, Any]) -> list[str]:
    """Keys that somebody must look after. Of former ones that have ended while the unit goes on, one line tells; of the
    own one that the parent refuses, another line does."""
    lines, former = [], dict[str, None]()
    is_told = bool(_refused(status))
    for each in status.get("keys", []):
        if each["what"] == "revoked" and each["goes_on"] and not each["mine"]:
            former[each["unit"]] = None
        elif not (each["mine"] and each["what"] == "revoked" and is_told):
            lines.append(say(f"look.key.{each['what']}" + (".mine" if each["mine"] else ""), **each))
    return [*lines, say("look.key.former", units=", ".join(former))] if former else lines


def told_of_left(each: Mapping[str, str]) -> str:
    """Batches of a unit that are left, and whom to ask."""
    of = each["unit"] if each["unit"] == each["scope"] else f"{each['unit']} ({each['scope']})"
    return say("look.left.frozen" if each["state"] == "frozen" else "look.left", **{**each, "unit": of})


def _refused(status: Mapping[str, Any]) -> list[str]:
    """The parent takes nothing from this machine: there is only one thing to be said of its key then."""
    parent = status["parent"]
    if parent is None or not parent.get("refused"):
        return []
    key = "look.refused.revoked" if parent["refused"] == "Revoked" else "look.refused"
    return [say(key, parent=parent["unit"], label=label_of(status["unit"]["id"]))]


def _life(status: Mapping[str, Any]) -> list[str]:
    """What became of this node's key, and what is still to come. Who ran 'dongbo recover' knows that he did."""
    began, lines = status.get("new_life_at"), []
    by_itself = began is not None and began > (status.get("recovered_at") or 0)
    if began is not None and by_itself and _days_since(began) < NEW_LIFE_DAYS:
        lines.append(say("look.new_life", at=moment(began)))
    lines += _not_met_since(status, began)
    if status.get("key", {}).get("new_key_waits"):
        lines.append(say("look.new_key", why=status["key"]["why"] or say("look.new_key.asked")))
    return lines


def _former_machines(status: Mapping[str, Any]) -> list[str]:
    """Machines that went on in the name of a unit after another had taken their place."""
    return [
        say("look.former_machine", unit=each["unit"], label=label_of(each["unit"]), at=moment(each["at"]))
        for each in status.get("former_machines", [])
        if _days_since(each["at"]) < NEW_LIFE_DAYS
    ]


def label_of(unit: str) -> str:
    """A unit's short name, as its parent's commands take it."""
    return unit.partition(".")[0]


def _not_met_since(status: Mapping[str, Any], began: int | None) -> list[str]:
    """The neighbours that have not been spoken with since this node lost history: some of it only they may have."""
    if began is None:
        return []
    parent = status["parent"]
    lines = []
    if parent is not None and max(parent["last_sync_at"] or 0, parent["by_hand"]["came_at"] or 0) < began:
        lines.append(say("look.not_met.parent", unit=parent["unit"], at=moment(began)))
    return lines + [
        say("look.not_met", unit=_named(each["name"], each["unit"]), at=moment(began))
        for each in status["children"]
        if each["state"] != "revoked" and (each["last_seen_at"] or 0) < began
    ]


def _caps(each: Mapping[str, Any]) -> str:
    """A unit that asked for more than its share, since the service started."""
    refused = each["refused_calls"] + each["cut_sessions"]
    words = {"unit": each["unit"], "at": moment(each["last_at"]), "why": each["last_why"]}
    return say("look.caps", **words, refused=number(refused), slowed=number(round(each["slowed_s"])))


def _brake(brake: Mapping[str, Any]) -> str:
    """An accident that is held here, what it did, and what to do."""
    if brake["undoing"]:
        return say("brake.undoing", **brake)
    told = [
        say(
            "brake.deleted" if each["field"] is None else "brake.changed",
            rows=number(each["rows"]),
            of=number(each["of"]),
            unit=brake["unit"],
            table=each["table"],
            field=each["field"],
        )
        for each in brake["changes"]
    ]
    return say("brake.pulled", number=brake["number"], at=moment(brake["at"]), what="; ".join(told))


def _children(children: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        box=None, padding=(0, 1), pad_edge=False, header_style="dim", title=say("status.children"), title_justify="left"
    )
    for key in ("unit", "name", "state", "seen", "behind"):
        wraps = key in ("unit", "name")
        justify: Literal["left", "right"] = "right" if key == "behind" else "left"
        table.add_column(say(f"column.{key}"), no_wrap=not wraps, overflow="fold", justify=justify)
    if any(child["last_error"] for child in children):
        table.add_column(say("column.remark"))
    for child in children:
        table.add_row(
            child["unit"],
            plain(child["name"]),
            Text(_childs_state(child), style=COLOURS.get(child["state"], "")),
            moment(child["by_hand"]["came_at"] if child["by_hand"]["lives_by_stick"] else child["last_seen_at"]),
            number(child["behind_batches"]) if child["behind_batches"] else "-",
            plain(child["last_error"] or ""),
        )
    return table


def _childs_state(child: Mapping[str, Any]) -> str:
    if not child["by_hand"]["lives_by_stick"] or child["state"] == "revoked":
        return say(f"state.{child['state']}")
    state = "state.stick.stale" if child["state"] == "stale" else f"state.{child['state']}"
    return f"{say('status.by_stick')} {say(state)}"


def _tree(status: Mapping[str, Any]) -> Tree:
    root = Tree(f"{plain(status['unit']['name'])} ({status['unit']['id']})")
    for child in status["children"]:
        label = Text(f"{plain(child['name'])} ({child['unit']}): ")
        label.append(say(f"state.{child['state']}"), style=COLOURS.get(child["state"], ""))
        root.add(label)
    return root


def value_of(value: Any) -> str:
    """A field's value for people: dates as they are written here, sets with commas, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return say("yes" if value else "no")
    if isinstance(value, str) and ISO_DAY.fullmatch(value):
        return day(value)
    return ", ".join(map(value_of, value)) if isinstance(value, list) else str(value)


def show_units(found: Sequence[Mapping[str, Any]]) -> None:
    """The units known here, each under its parent."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for key in ("unit", "name", "level", "node"):
        table.add_column(say(f"column.{key}"), overflow="fold")
    for each in found:
        depth = each["unit"].count(".")
        node = say("unit.has_node") if each["has_node"] else say("unit.no_node")
        if each["revoked"]:
            node = say("state.revoked")
        if each["invited_until_ms"]:
            node = say("unit.invited", until=moment(each["invited_until_ms"]))
        table.add_row("  " * depth + each["unit"], plain(each["name"]), each["level"], node)
    show(console(), table)

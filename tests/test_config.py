"""node.toml: what is written is read again, older files are still read, a mistake is named with its mend."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from conflict.values import UnitPath
from node.config import AtRest, BadConfig, Ca, Config, Schedule, load, save

FULL = Schedule(
    every_s=60,
    cron=("0 1 * * *", "30 13 * * mon-fri"),
    on_change=False,
    jitter_s=600,
    backoff_max_s=120,
    time_zone="UTC",
    windows=("22:00-05:00", "sat,sun 08:00-17:00"),
    blackout=("2027-02-05..2027-02-12", "30/04"),
    rate_kbit_s=256,
)
SCHEDULES = {"nothing said": Schedule(), "all said": FULL, "one cron": Schedule(cron=("0 1 * * *",))}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_what_is_written_is_read_again(tmp_path: Path, schedule: Schedule) -> None:
    config = Config(
        UnitPath("hue.vn"),
        "Thành phố Huế",
        "127.0.0.1:7470",
        "0.0.0.0:7471",
        "hue.example:7471",
        schedule=schedule,
        at_rest=AtRest("encrypted", secret_file="/media/key/dongbo"),
        ca=Ca(passphrase_env="CA_PASSPHRASE"),
    )
    save(tmp_path, config)
    assert load(tmp_path) == config


@pytest.mark.parametrize(("name", "kind"), {"sync": Schedule, "at_rest": AtRest, "ca": Ca}.items())
def test_every_setting_is_written_and_says_what_it_is(tmp_path: Path, name: str, kind: type) -> None:
    save(tmp_path, Config(UnitPath("hue.vn"), "Huế", ca=Ca(key="/media/ca.key")))
    text = (tmp_path / "node.toml").read_text(encoding="utf-8")
    section = text.partition(f"[{name}]")[2].partition("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in section] == [each.name for each in fields(kind)]
    assert all("  # " in line for line in section)


def write(folder: Path, sync: str) -> Path:
    (folder / "node.toml").write_text(f'unit = "hue.vn"\nname = "Huế"\n[sync]\n{sync}\n', encoding="utf-8")
    return folder


def test_a_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    old = (
        'every_s = 300\ncron = ""\non_change = true\njitter_s = 5\nbackoff_max_s = 900\ntime_zone = "Asia/Ho_Chi_Minh"'
    )
    assert load(write(tmp_path, old)).schedule == Schedule()
    assert load(write(tmp_path, 'cron = "0 1,13 * * *"')).schedule == Schedule(cron=("0 1,13 * * *",))


# what the section says, the setting that is named, what would be right
MISTAKES = {
    "an hour that is none": ('windows = ["25:00-05:00"]', "sync.windows", "between 00:00 and 24:00"),
    "a window that is none": ('windows = ["at night"]', "sync.windows", '"22:00-05:00"'),
    "a weekday that is none": ('windows = ["son 08:00-09:00"]', "sync.windows", "sun"),
    "a window outside a list": ('windows = "22:00-05:00"', "sync.windows", "a list"),
    "a number among windows": ("windows = [22]", "sync.windows", "a list of texts"),
    "a day that is none": ('blackout = ["30/02"]', "sync.blackout", "no day of the calendar"),
    "a blackout that is none": ('blackout = ["Tết"]', "sync.blackout", '"2027-02-05"'),
    "a range that goes back": ('blackout = ["2027-02-12..2027-02-05"]', "sync.blackout", "ends on the day"),
    "cron with four fields": ('cron = "0 1 * *"', "sync.cron", "five fields"),
    "cron that never comes": ('cron = ["0 1 * * *", "0 0 30 2 *"]', "sync.cron", "never comes"),
    "a time zone that is none": ('time_zone = "Asia/Hue"', "sync.time_zone", "Asia/Ho_Chi_Minh"),
    "a time zone that is a path": ('time_zone = "../etc/passwd"', "sync.time_zone", "UTC"),
    "no time zone": ('time_zone = ""', "sync.time_zone", "UTC"),
    "a rate below the least": ("rate_kbit_s = 9", "sync.rate_kbit_s", "at least"),
    "a rate below nothing": ("rate_kbit_s = -1", "sync.rate_kbit_s", "between 0"),
    "no number": ('every_s = "300"', "sync.every_s", "a number"),
    "a truth for a number": ("jitter_s = true", "sync.jitter_s", "a number"),
    "not a number": ("jitter_s = nan", "sync.jitter_s", "between 0"),
    "for ever": ("every_s = inf", "sync.every_s", "between 0"),
    "a number for a truth": ("on_change = 1", "sync.on_change", "true or false"),
    "a setting that does not exist": ("window = []", "sync.window", "sync.windows"),
}


@pytest.mark.parametrize(("sync", "setting", "right"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_file_setting_and_what_would_be_right(
    tmp_path: Path, sync: str, setting: str, right: str
) -> None:
    with pytest.raises(BadConfig) as caught:
        load(write(tmp_path, sync))
    said = str(caught.value)
    assert str(tmp_path / "node.toml") in said
    assert setting in said
    assert right in said + caught.value.hint

"""What one peer may ask: rates, refusals with a time, and an account of work that brought nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from conflict.values import Epoch, Head, Scope, StreamId, UnitPath
from node import caps as capping
from node import metering
from node.caps import CALLS_AT_FIRST, CALLS_AT_ONCE, STRANGERS, Bucket, Caps, PeerCaps
from node.metering import Metered, charge
from node.transport import RETRY_S_MAX, error_of, refuse
from sync_engine.errors import LimitExceeded, LinkFault, TooOften
from sync_engine.frames import Ack, BatchFrame, Certificates, Credit, Done, Frame, HeadsFrame, Refusal, encode

UNIT = "phu-vang.hue.vn"
STREAM = StreamId(UnitPath(UNIT), Epoch("0" * 16), Scope(UNIT))


class Clock:
    """A world in which only sleeping takes time."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def caps(clock: Clock) -> Caps:
    return Caps(clock, clock.sleep)


# --- buckets and calls -----------------------------------------------------------------------------------------------


def test_a_bucket_gives_what_it_has_then_so_much_a_second() -> None:
    bucket = Bucket(2.0, 4.0, now=0.0)
    for _ in range(4):
        assert bucket.wait_s(0.0) == 0
        bucket.take(1, 0.0)
    bucket.take(1, 0.0)
    assert bucket.wait_s(0.0) == 0.5
    assert bucket.wait_s(0.25) == 0.25
    assert bucket.level(100.0) == 4.0
    bucket.take(-50, 100.0)
    assert bucket.level(100.0) == 4.0
    assert bucket.level(50.0) == 4.0, "a clock that goes back takes nothing away"


async def calls(caps: Caps, peer: PeerCaps, count: int, *, enrols: bool = False) -> list[str]:
    said = []
    for _ in range(count):
        try:
            async with caps.call(peer, enrols=enrols):
                said.append("served")
        except TooOften as fault:
            said.append("refused" if fault.retry_s > 0 else "refused, and not told when to call again")
    return said


async def test_a_child_that_calls_as_clerks_write_is_never_kept_waiting(caps: Caps, clock: Clock) -> None:
    for _ in range(200):
        assert await calls(caps, caps.of(UNIT), 1) == ["served"]
        clock.now += 0.6
    assert clock.slept == 0
    assert caps.told() == []


async def test_calls_without_a_pause_are_served_two_a_second(caps: Caps, clock: Clock) -> None:
    began = clock.now
    said = await calls(caps, caps.of(UNIT), 100)
    assert said.count("served") == 100
    assert clock.now - began == pytest.approx((100 - CALLS_AT_FIRST) / 2, abs=1)


async def test_calls_side_by_side_are_refused_with_a_time(caps: Caps) -> None:
    peer = caps.of(UNIT)
    async with asyncio.timeout(5):
        said = await asyncio.gather(*(calls(caps, peer, 1) for _ in range(200)))
    assert 0 < sum(each == ["served"] for each in said) <= CALLS_AT_FIRST + CALLS_AT_ONCE
    assert peer.refused_calls == sum(each == ["refused"] for each in said)
    assert peer.at_once == 0


async def test_one_child_has_so_many_calls_open_and_another_as_many(caps: Caps) -> None:
    release, peer = asyncio.Event(), caps.of(UNIT)

    async def stays() -> None:
        async with caps.call(peer):
            await release.wait()

    tasks = [asyncio.create_task(stays()) for _ in range(CALLS_AT_ONCE)]
    await asyncio.sleep(0)
    assert await calls(caps, peer, 1) == ["refused"]
    assert await calls(caps, caps.of("phong-dien.hue.vn"), 1) == ["served"]
    release.set()
    await asyncio.gather(*tasks)
    assert await calls(caps, peer, 1) == ["served"]


async def test_keys_are_certified_a_few_at_first_and_then_rarely(caps: Caps) -> None:
    assert (await calls(caps, caps.of(UNIT), 8, enrols=True)).count("served") <= 6


async def test_a_copy_of_a_home_that_asks_and_asks_does_not_shut_the_invited_machine_out(caps: Caps) -> None:
    assert "refused" in await calls(caps, caps.caller(UNIT, "hue.vn"), 20, enrols=True)
    assert await calls(caps, caps.caller(UNIT, "hue.vn", invited=True), 1, enrols=True) == ["served"]
    assert caps.caller("a.b.vn", "hue.vn", invited=True).unit == STRANGERS


def test_who_has_no_business_here_shares_one_account(caps: Caps) -> None:
    assert caps.caller(UNIT, "hue.vn").unit == UNIT
    strangers = ("a.phu-vang.hue.vn", "b.phu-vang.hue.vn", "vn", "hue.vn", "ipv4:127.0.0.1:5")
    assert {caps.caller(each, "hue.vn").unit for each in strangers} == {STRANGERS}


# --- what is said on the wire of it ----------------------------------------------------------------------------------


async def test_when_to_call_again_comes_over_the_wire() -> None:
    said: list[Any] = []

    class Context:
        async def abort(self, code: Any, words: str) -> None:
            said.append((code, words))

    class Error:
        def code(self) -> Any:
            return said[0][0]

        def details(self) -> Any:
            return said[0][1]

    for told, heard in ((12.34, 12.3), (1e9, RETRY_S_MAX)):
        said.clear()
        await refuse(Context(), TooOften(f"{UNIT} calls too often", retry_s=told))  # type: ignore[arg-type]
        fault = error_of(Error(), "host:1")  # type: ignore[arg-type]
        assert isinstance(fault, TooOften)
        assert (str(fault), fault.retry_s) == (f"{UNIT} calls too often", heard)
        assert fault.hint


# --- frames ----------------------------------------------------------------------------------------------------------


def head(seq: int) -> Head:
    return Head(STREAM, seq, bytes(32))


class Talk:
    """One session's frames, with the world's clock standing still but for what is waited here."""

    def __init__(self, caps: Caps, clock: Clock) -> None:
        self.clock = clock
        self.peer = caps.of(UNIT)
        self.coming: list[bytes] = []
        self.gone: list[bytes] = []
        self.taking: Callable[[bytes], Awaitable[None]] = self._take
        self.metered = Metered(self._read, self._write, self.peer, caps)

    async def _read(self) -> bytes:
        return self.coming.pop(0)

    async def _take(self, data: bytes) -> None:
        self.gone.append(data)

    async def _write(self, data: bytes) -> None:
        await self.taking(data)

    async def hear(self, frame: Frame | bytes) -> float:
        """One frame in; for how long it had to wait."""
        began = self.clock.now
        self.coming.append(frame if isinstance(frame, bytes) else encode(frame))
        await self.metered.read()
        return self.clock.now - began

    async def hear_again_and_again(self, frame: Frame | bytes) -> None:
        for _ in range(100_000):
            await self.hear(frame)

    async def say(self, frame: Frame) -> None:
        await self.metered.write(encode(frame))


@pytest.fixture
def talk(caps: Caps, clock: Clock) -> Talk:
    return Talk(caps, clock)


BATCH = BatchFrame(bytes(64 * 1024))
WORDS: dict[str, Frame | bytes] = {
    "credit": Credit(1),
    "an ack": Ack((head(1),)),
    "an end": Done(),
    "a refusal": Refusal(head(1), "no"),
    "certificates": Certificates(((b"x" * 1000,) * 4,)),
    "a batch": BATCH,
    "of a version to come": b"\xfa\x06\x04next",
    "nothing": b"",
    "no frame at all": b"\xff\xff\xff",
}


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
async def test_what_brings_nothing_is_slowed_to_a_tenth_and_then_cut(
    talk: Talk, word: Frame | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "WAITED_S_MAX", 10.0)
    _, cost = charge(word if isinstance(word, bytes) else encode(word))
    free = round(capping.WASTE_MS_MAX / cost)
    for _ in range(free):
        assert await talk.hear(word) == 0
    waits = [await talk.hear(word) for _ in range(5)]
    assert sum(waits) == pytest.approx(5 * cost / capping.WASTE_MS_A_SECOND, rel=0.3, abs=0.6)
    with pytest.raises(LimitExceeded, match="brings nothing"):
        await talk.hear_again_and_again(word)
    assert talk.peer.cut_sessions == 1


async def test_a_child_that_brings_batches_never_waits(talk: Talk) -> None:
    await talk.say(HeadsFrame((head(10),)))
    for seq in range(11, 1_000):
        assert await talk.hear(BATCH) == 0
        await talk.say(Ack((head(seq),)))
        await talk.say(Credit(seq))
    assert talk.peer.slowed_s == 0


async def test_a_child_that_takes_batches_never_waits(talk: Talk) -> None:
    for seq in range(1, 5_000):
        await talk.say(BatchFrame(b"a batch"))
        assert await talk.hear(Ack((head(seq),))) == 0
        assert await talk.hear(Credit(seq)) == 0


async def test_batches_that_were_held_before_are_of_no_use(talk: Talk) -> None:
    await talk.say(HeadsFrame((head(10),)))
    waited = 0.0
    for _ in range(100):
        waited += await talk.hear(BATCH)
        await talk.say(Ack((head(10),)))
    assert waited > 10


async def test_the_account_is_the_childs_and_not_the_sessions(caps: Caps, clock: Clock) -> None:
    first, second = Talk(caps, clock), Talk(caps, clock)
    for _ in range(round(capping.WASTE_MS_MAX / charge(encode(BATCH))[1]) + 2):
        await first.hear(BATCH)
    assert await second.hear(Credit(1)) > 0


async def test_who_talks_for_long_and_brings_nothing_is_cut(talk: Talk) -> None:
    for _ in range(4):
        talk.clock.now += 300
        await talk.hear(Credit(1))
    talk.clock.now += 300
    with pytest.raises(LinkFault, match="nothing came of it"):
        await talk.hear(Credit(1))


async def test_who_takes_nothing_is_cut(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "WRITE_S", 0.01)

    async def never(_data: bytes) -> None:
        await asyncio.Event().wait()

    talk.taking = never
    with pytest.raises(LinkFault, match="has taken nothing"):
        await talk.say(Credit(1))
    assert talk.peer.cut_sessions == 1

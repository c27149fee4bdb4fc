"""Who may connect to a node, and to call what: TLS 1.3 and a certificate of the tree, or nothing."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import grpc
import grpc.aio
import pytest
from dongbo.v1 import sync_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from node import invitation, keys
from node.keys import KeyStore
from node.transport import ENROL
from sync_engine.frames import Hello
from tests.e2e import raw
from tests.e2e.conftest import CENTRE, DISTRICT, PROVINCE
from tests.e2e.processes import Cluster
from tests.e2e.raw import Identity, Refusal, exchange, greet, hello_from, throw, tls_context
from tests.pki import join


def certified(shared: Cluster, folder: Path, unit: str) -> Identity:
    """A real certificate for any unit, issued down the path with the ancestors' real keys."""
    label, _, parent = unit.partition(".")
    above = (
        KeyStore.load(shared[parent].path)
        if parent in shared.homes
        else join(KeyStore.load(shared[CENTRE].path), folder / parent, parent)
    )
    return Identity.of(join(above, folder / label, unit))


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_tls_1_3_with_a_node_certificate_is_accepted(shared: Cluster, tmp_path: Path) -> None:
    who, home = Identity.at(shared[DISTRICT]), shared[PROVINCE]
    version, first = greet(home.port, PROVINCE, tls_context(tmp_path, who.root, who))
    assert (version, first[3:4]) == ("TLSv1.3", b"\x04"), "the server's first HTTP/2 frame is SETTINGS"


def test_tls_1_2_is_refused_although_the_certificate_is_good(shared: Cluster, tmp_path: Path) -> None:
    who, home = Identity.at(shared[DISTRICT]), shared[PROVINCE]
    with pytest.raises(OSError, match=r"(?i)handshake failure|protocol version|eof|reset"):
        greet(home.port, PROVINCE, tls_context(tmp_path, who.root, who, ssl.TLSVersion.TLSv1_2))


def test_a_client_without_a_certificate_is_refused(shared: Cluster, tmp_path: Path) -> None:
    who, home = Identity.at(shared[DISTRICT]), shared[PROVINCE]
    assert_refused(home.port, tls_context(tmp_path, who.root, None))


def test_a_client_of_another_tree_with_units_of_the_same_names_is_refused(shared: Cluster, tmp_path: Path) -> None:
    foreign_root = KeyStore.create_root(made(tmp_path / "vn"), CENTRE, datetime.now(UTC))
    foreign = join(join(foreign_root, tmp_path / "hue", PROVINCE), tmp_path / "pv", DISTRICT)
    who = Identity.at(shared[DISTRICT])
    assert_refused(shared[PROVINCE].port, tls_context(tmp_path, who.root, Identity.of(foreign)))


def assert_refused(port: int, context: ssl.SSLContext) -> None:
    """In TLS 1.3 the client learns it with its first read."""
    try:
        _version, first = greet(port, PROVINCE, context)
    except OSError:
        return
    assert first == b""


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# --- who may call what -----------------------------------------------------------------------------------------------


async def refused(port: int, unit: str, who: Identity, hello: Hello) -> str:
    """The code with which a hello is refused."""
    async with exchange(port, unit, who) as line:
        with pytest.raises(Refusal) as caught:
            await line.talk(hello)
    return caught.value.fault.code


async def test_a_grandchild_that_dials_its_grandparent_is_refused(shared: Cluster) -> None:
    who, hello = Identity.at(shared[DISTRICT]), hello_from(shared[DISTRICT])
    assert await refused(shared[CENTRE].port, CENTRE, who, hello) == "OutOfScope"


STRANGERS = {
    "a sibling's child": "hai-chau.da-nang.vn",
    "a sibling": "da-nang.vn",
    "the province's own certificate": PROVINCE,
    "its parent": CENTRE,
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_only_its_own_children_may_exchange_with_a_province(shared: Cluster, tmp_path: Path, name: str) -> None:
    unit = STRANGERS[name]
    who = Identity.at(shared[unit]) if unit in shared.homes else certified(shared, tmp_path, unit)
    hello = hello_from(shared[DISTRICT], unit=unit)
    assert await refused(shared[PROVINCE].port, PROVINCE, who, hello) == "OutOfScope"


async def test_a_child_that_calls_itself_another_is_refused(shared: Cluster) -> None:
    hello = hello_from(shared[DISTRICT], unit="phong-dien.hue.vn")
    assert await refused(shared[PROVINCE].port, PROVINCE, Identity.at(shared[DISTRICT]), hello) == "OutOfScope"


def enrolment_of(shared: Cluster, label: str) -> Identity:
    """What an invitation carries, with the province's real key."""
    until = datetime.now(UTC) + timedelta(hours=1)
    made = invitation.create(KeyStore.load(shared[PROVINCE].path), label, "Huyện", "127.0.0.1:1", until)
    return Identity.invited(made)


async def test_an_invitation_may_not_exchange(shared: Cluster) -> None:
    hello = hello_from(shared[DISTRICT])
    assert await refused(shared[PROVINCE].port, PROVINCE, enrolment_of(shared, "phu-vang"), hello) == "OutOfScope"


async def test_an_invitation_may_not_even_ask_for_health(shared: Cluster) -> None:
    question = health_pb2.HealthCheckRequest()
    async with raw.connected(shared[PROVINCE].port, PROVINCE, Identity.at(shared[DISTRICT])) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(question, timeout=raw.WAIT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    async with raw.connected(shared[PROVINCE].port, PROVINCE, enrolment_of(shared, "phu-vang")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(question, timeout=raw.WAIT_S)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def enrol(port: int, who: Identity, home: Path, unit: str) -> str:
    """The code with which an enrolment is refused."""
    waiting = keys.request(made(home), unit, with_ca=True)
    request = sync_pb2.EnrolRequest(
        node_request=waiting.node_request, ca_request=waiting.ca_request, epoch=int(waiting.epoch, 16)
    )
    async with raw.connected(port, PROVINCE, who) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(ENROL)(request.SerializeToString(), timeout=raw.WAIT_S)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    return str(json.loads(caught.value.details() or "")["code"])


async def test_a_node_certificate_may_not_enrol(shared: Cluster, tmp_path: Path) -> None:
    who = Identity.at(shared[DISTRICT])
    assert await enrol(shared[PROVINCE].port, who, tmp_path / "new", DISTRICT) == "BadCertificate"


async def test_an_invitation_that_the_parent_never_recorded_enrols_nobody(shared: Cluster, tmp_path: Path) -> None:
    """Made with the parent's real key, by a copy of it, say."""
    who = enrolment_of(shared, "a-luoi")
    assert await enrol(shared[PROVINCE].port, who, tmp_path / "new", "a-luoi.hue.vn") == "InvitationSpent"


# --- garbage ---------------------------------------------------------------------------------------------------------


async def test_garbage_on_the_port_hurts_nobody(shared: Cluster, tmp_path: Path) -> None:
    rng = Random(7)
    province, district = shared[PROVINCE], shared[DISTRICT]
    who = Identity.at(district)
    for piece in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + rng.randbytes(4_000), rng.randbytes(9_000)):
        throw(province.port, piece)
    throw(province.port, rng.randbytes(5_000), tls_context(tmp_path, who.root, who))
    for frame, code in {
        b"\xff": "Malformed",
        rng.randbytes(300): "Malformed",
        b"\x0a\xff\xff\xff\xff\x0f": "Malformed",
        b"\x0a\x00" * 2: "LimitExceeded",
        bytes(8_000_000): "LinkFault",  # over the limit of gRPC itself
    }.items():
        async with exchange(province.port, PROVINCE, who) as line:
            with pytest.raises(Refusal) as caught:
                await line.talk(frame)
            assert caught.value.fault.code == code

    assert province.process is not None
    assert province.process.poll() is None
    assert "Traceback" not in province.log, province.tail()
    assert district.sync()["ok"]

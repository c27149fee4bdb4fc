"""``join --request`` and ``join --grant``: a home gets its node without a network.

Role: make keys and a request for them; install what the parent has answered, and take in the first bundle.
Reach: node.setup, node.keys, node.envelope, node.grant_file, node.carrying. Invariant: the request stays in the home
until all is done, so that whatever is cut off is run again with the same files.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from conflict.values import UnitPath
from node import __version__, authority, carrying, envelope, platform, secret, setup
from node import config as configs
from node import keys as key_files
from node.bundle_file import place_of
from node.bundle_file import prove as prove_bundle
from node.carry_key import publish_key
from node.carrying import Imported, Tell
from node.config import ENCRYPTED, AtRest, Config, Schedule
from node.desk import FileDesk
from node.envelope import KeyPair
from node.grant_file import read_grant, read_request, write_request
from node.keys import KeyStore
from node.local import Node
from node.renewal import Granted
from node.storage.certificates import keep_path
from node.storage.context import Context
from node.storage.statements import keep
from sync_engine.certificates import tree_id_of, verify_node_path
from sync_engine.enrolling import (
    ENROL,
    Grant,
    HandRequest,
    NoGrant,
    encode_request,
    enrol_bytes,
    parse_request,
    parse_response,
    request_body,
)
from sync_engine.errors import AlreadySetUp, BadCertificate, BadInput, NotSetUp, WrongTree
from sync_engine.names import check_unit, is_name, parent_of
from sync_engine.statements import EncryptionKey, parse

KEPT = "enrol.request"
"""In ``keys``: what was asked. It goes when all is done."""

FIRST = "first.dongbo"

FULL_PATH = "write the full path, such as phu-vang.hue.vn, or name the unit above with --parent"


def unit_of(said: str, parent: str) -> UnitPath:
    """Who asks: a full path, or a label and the path of the unit above. Raises BadName or BadInput."""
    unit = check_unit(f"{said}.{parent}" if parent and not said.endswith("." + parent) else said)
    if parent_of(unit) is None:
        raise BadInput(f"{said} alone does not say below which unit it is", hint=FULL_PATH)
    if parent and parent_of(unit) != parent:
        raise BadInput(f"{unit} is not directly below {parent}", hint=FULL_PATH)
    return unit


# --- the request -----------------------------------------------------------------------------------------------------


def request(home: Path, unit: UnitPath, name: str, out: Path, at_rest: AtRest) -> HandRequest:
    """Make keys and write what they ask; run again it writes the same. Raises AlreadySetUp, NoSecret, BadSecret,
    BadInput or DiskFull."""
    if not is_name(name):
        raise BadInput("a unit's name cannot be empty, long or hold control characters", hint="choose a shorter name")
    _check_no_node(home)
    secret.expect(home, at_rest)
    platform.make_private_dir(home)
    with platform.HomeLock(home):
        _check_no_node(home)
        _check_at_rest(home, at_rest)
        if (home / "keys" / key_files.NODE_PEM).exists():
            raise AlreadySetUp(f"{home} has taken a grant already", hint="run 'dongbo join --grant FILE' once more")
        waiting = key_files.request(home, unit, with_ca=True)
        pair = next(iter(envelope.load_all(home)), None) or envelope.make(home)
        asked = _kept(home)
        wanted = (unit, name, waiting.node_request, pair.public)
        if asked is None or (asked.unit, asked.name, asked.node_request, asked.public_key) != wanted:
            enrol = enrol_bytes(
                waiting.node_request, waiting.ca_request, waiting.epoch, software=f"dongbo {__version__}"
            )
            body = request_body(unit, name, enrol, pair.kem, pair.public)
            data = encode_request(body, waiting.signer()(ENROL, body))
            platform.write_private(home / "keys" / KEPT, data)
            asked = parse_request(data)
        write_request(out, encode_request(asked.body, asked.signature))
    return asked


def _check_no_node(home: Path) -> None:
    if configs.path_of(home).exists():
        raise AlreadySetUp(
            f"{home} holds a node already", hint="choose another --home, or look at this one with 'dongbo status'"
        )


def _check_at_rest(home: Path, at_rest: AtRest) -> None:
    """Keys that lie encrypted, or plain, stay so between the two steps. Raises BadInput."""
    is_encrypted, has_keys = (home / secret.AT_REST).exists(), any((home / "keys").glob("*.key"))
    if has_keys and is_encrypted != (at_rest.database == ENCRYPTED):
        said = "with" if is_encrypted else "without"
        raise BadInput(f"the request of this home was made {said} --encrypt", hint="say the same now as then")


def _kept(home: Path) -> HandRequest | None:
    path = home / "keys" / KEPT
    return parse_request(read_request(path)) if path.exists() else None


# --- the grant -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Looked:
    """A grant that answers this home's request. ``tree_id`` and ``digest`` are what two people compare; whether the
    tree is the right one nobody else can tell."""

    unit: UnitPath
    name: str
    tree_id: bytes
    digest: bytes


def look(home: Path, file: Path, at_rest: AtRest) -> Looked:
    """What a grant says. Raises NoGrant, NotSetUp, AlreadySetUp or BadInput; nothing is changed."""
    if not (home / "keys" / KEPT).exists():
        _check_no_node(home)
        raise NotSetUp(f"nothing was asked in {home}", hint="make a request first: 'dongbo join --request FILE'")
    if not configs.path_of(home).exists():
        secret.expect(home, at_rest)
        _check_at_rest(home, at_rest)
    asked = _asked(home)
    return _checked(asked, read_grant(file, envelope.load_all(home)))[0]


def _asked(home: Path) -> HandRequest:
    asked = _kept(home)
    assert asked is not None  # noqa: S101 - the caller has looked
    return asked


def _checked(asked: HandRequest, grant: Grant) -> tuple[Looked, Granted]:
    """Raises NoGrant unless a grant certifies what was asked, in one tree."""
    if grant.request != asked.digest:
        raise NoGrant("this grant answers another request than this home's")
    granted = parse_response(grant.response)
    try:
        path = tuple(granted.node_path)
        tree_id = tree_id_of(path[-1] if path else b"")
        certified = verify_node_path(path, tree_id)
        key = authority.check_request(asked.node_request, asked.unit, asked.epoch)
    except (BadCertificate, WrongTree) as error:
        raise NoGrant(f"this grant does not prove what it certifies: {error}") from error
    if (certified.unit, certified.epoch, certified.public_key) != (asked.unit, asked.epoch, key):
        raise NoGrant("this grant certifies another key than this home's")
    return Looked(asked.unit, granted.name, tree_id, grant.digest), granted


async def join(
    home: Path,
    file: Path,
    looked: Looked,
    out: Path | None,
    tell: Tell,
    *,
    listen: str,
    address: str,
    schedule: Schedule,
    at_rest: AtRest,
) -> Imported:
    """Install what was granted, take in the first bundle, and write the answer. ``looked`` is what was compared. Raises
    NoGrant, BadInput, DiskFull or what is wrong with the bundle."""
    with platform.HomeLock(home):
        asked, pairs, first = _asked(home), envelope.load_all(home), home / FIRST
        first.unlink(missing_ok=True)
        grant = await asyncio.to_thread(read_grant, file, pairs, first)
        again, granted = _checked(asked, grant)
        if again != looked:
            raise NoGrant("this grant has been changed since it was looked at")
        keys = KeyStore.install(home, list(granted.node_path), granted.ca_certificate, looked.tree_id)
        if not configs.path_of(home).exists():
            await asyncio.to_thread(setup.make_database, home, keys, granted)
            config = Config(keys.unit, granted.name, "", listen, address, schedule=schedule, at_rest=at_rest)
            configs.save(home, config)
        node = await Node.open(home)
        try:
            done = await _take_in(node, grant, asked, pairs, first, out or file.parent, tell)
        finally:
            await node.close()
        first.unlink(missing_ok=True)
        (home / "keys" / KEPT).unlink()
    return done


async def _take_in(
    node: Node, grant: Grant, asked: HandRequest, pairs: list[KeyPair], first: Path, out: Path, tell: Tell
) -> Imported:
    """The first exchange, whose answer tells the parent under which key it is heard here."""
    await publish_key(node, next(pair for pair in pairs if pair.public == asked.public_key))
    to = await node.database.write(_keep_key, node.context, grant)
    bundle = await asyncio.to_thread(prove_bundle, first, pairs, node.context.unit, node.context.tree_id)
    return await carrying.take_in(node, [bundle], FileDesk(place_of(out), to=to), tell)


def _keep_key(connection: Connection, context: Context, grant: Grant) -> EncryptionKey:
    """Keep under which key things are encrypted to the parent. Raises a RemoteFault."""
    keep_path(connection, grant.carry_path, context.tree_id)
    keep(connection, context, grant.carry)
    said = parse(grant.carry)
    if not isinstance(said, EncryptionKey) or said.unit != parent_of(context.unit):
        raise NoGrant("this grant does not tell the parent's key")
    return said

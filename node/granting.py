"""What a parent does with a request that was carried to it: prove it, certify it, and write the grant.

Role: a request's proofs; the enrolment, with the first bundle for the new unit.
Reach: node.enrolment, which certifies as it does over a line, node.carrying, node.grant_file. Invariant: nothing is
asked of the database before the request has proven all its keys; nothing is told to keys that have ended.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from conflict.values import Scope, UnitPath
from node import authority, carrying, platform
from node.bundle_file import Place
from node.carry_key import publish_key
from node.carrying import Exported, Tell
from node.desk import FileDesk
from node.enrolment import certify_by_hand
from node.envelope import seal_to
from node.grant_file import check_out, write_grant
from node.keys import KeyStore
from node.local import Node
from node.storage.certificates import path_of
from node.storage.statements import said_of
from sync_engine.bundle import FILE_KEY_BYTES
from sync_engine.certificates import check_signature
from sync_engine.enrolling import ENROL, Grant, HandRequest, NoRequest, parse_request
from sync_engine.errors import BadCertificate, BadInput, BadSignature, NotCertifiedYet
from sync_engine.names import CATALOG, parent_of
from sync_engine.statements import ENCRYPTION

FIRST_BYTES = 3_500_000_000
"""What a grant holds of the first bundle: FAT32 takes no file of 4 GiB. The rest comes with the next bundle."""


class AnothersChild(BadInput):
    """A request of a unit that is not directly below this one."""

    default_hint = "nothing was done; carry it to the unit that is directly above the one that asks"


def prove(data: bytes, unit: UnitPath) -> HandRequest:
    """A request for a child of ``unit`` whose every key was proven by its holder. Raises NoRequest, AnothersChild, or
    LocalFault where nothing can be encrypted to its key."""
    asked = parse_request(data)
    try:
        key = authority.check_request(asked.node_request, asked.unit, asked.epoch)
        check_signature(key, ENROL, asked.body, asked.signature)
        if asked.ca_request and authority.check_request(asked.ca_request, asked.unit, None) == key:
            raise BadCertificate("one key cannot be a node's and a CA's at once")
    except (BadCertificate, BadSignature) as error:
        raise NoRequest(f"this request was changed, or does not prove its keys: {error}") from error
    if parent_of(asked.unit) != unit:
        raise AnothersChild(f"this is a request of {asked.unit}, which is not directly below {unit}")
    seal_to(asked.kem, asked.public_key, bytes(FILE_KEY_BYTES))
    return asked


async def approve(
    node: Node, keys: KeyStore, asked: HandRequest, name: str, out: Path, tell: Tell, *, recover: bool
) -> tuple[Grant, Exported]:
    """Certify a proven request and write the grant to ``out``. Raises what ``certify_by_hand`` does, NotCertifiedYet
    while the CA key is away, BadInput or DiskFull."""
    await asyncio.to_thread(check_out, out)
    made = await node.database.write(certify_by_hand, node.context, keys, asked, name, recover=recover)
    if made is None:
        raise NotCertifiedYet(
            f"the request of {asked.unit} is noted, and waits: the CA key of {node.keys.unit} is kept elsewhere",
            hint="bring the CA key (put the disk in that holds it), or name it with --ca-key, and run this again",
        )
    grant = await _grant(node, asked, made)
    folder = node.home / "granting"
    await asyncio.to_thread(_emptied, folder)
    try:
        desk = FileDesk(Place(folder, "first", FIRST_BYTES))
        exported = await carrying.export(node, asked.unit, desk, tell)
        await asyncio.to_thread(write_grant, out, asked.kem, asked.public_key, grant, exported.files[0])
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return grant, exported


async def _grant(node: Node, asked: HandRequest, response: bytes) -> Grant:
    """The answer, with what the child needs to encrypt its own to this node."""
    await publish_key(node)
    unit, epoch = node.context.unit, node.context.speaks_as[0]
    said = await node.database.read(said_of, ENCRYPTION, unit, epoch, Scope(unit + CATALOG))
    assert said is not None  # noqa: S101 - published just now
    path = await node.database.read(path_of, unit, epoch) or node.keys.node_path
    return Grant(asked.digest, response, said.statement, tuple(path))


def _emptied(folder: Path) -> None:
    """A private folder for the first bundle; what a run that was cut off has left goes."""
    shutil.rmtree(folder, ignore_errors=True)
    platform.make_private_dir(folder)

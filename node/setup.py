"""``init`` and ``join``: how a home gets its node.

Role: make keys, configuration and database; an interrupted set-up is simply run again.
Reach: node.keys, node.config, node.storage, node.parent_link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from node import config as configs
from node import keys as key_files
from node import platform, secret
from node.commands.exchange import sync
from node.config import AtRest, Config, Schedule
from node.database import fault_of
from node.invitation import Invitation
from node.keys import KeyStore
from node.local import Node, context_of, database_path
from node.parent_link import enrol
from node.renewal import Granted, keep_vouched
from node.starter import starter_catalog
from node.storage.audit import note
from node.storage.certificates import keep_path
from node.storage.context import Context
from node.storage.engine import open_engine
from node.storage.setup import open_database, publish_root
from sync_engine.audit import Act
from sync_engine.errors import AlreadySetUp, LinkFault, RegistryError, ReplicationError
from sync_engine.names import check_label
from sync_engine.registry import Registry, parse_registry

PLAIN_AT_REST = AtRest()
SHIPPED_REGISTRY = Path(__file__).parent / "registry" / "membership.toml"


def read_registry(path: Path | None) -> Registry:
    """The registry a root publishes. Raises RegistryError, which names the line."""
    return parse_registry(read_text(path or SHIPPED_REGISTRY))


def read_text(path: Path) -> str:
    """A registry's text. Raises RegistryError, which names the line, where it is none."""
    raw = path.read_bytes()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RegistryError("this is not text in UTF-8", line=line, hint="save the file as UTF-8") from error


def _check_empty(home: Path) -> None:
    if configs.path_of(home).exists():
        raise AlreadySetUp(
            f"{home} holds a node already", hint="choose another --home, or look at this one with 'dongbo status'"
        )


def init(
    home: Path,
    label: str,
    name: str,
    registry: Registry,
    *,
    listen: str,
    address: str,
    schedule: Schedule,
    at_rest: AtRest = PLAIN_AT_REST,
) -> Config:
    """Make the root of a tree. Raises AlreadySetUp, BadName, NoSecret, BadSecret."""
    unit = check_label(label)
    _check_empty(home)
    secret.expect(home, at_rest)
    platform.make_private_dir(home)
    with platform.HomeLock(home):
        _check_empty(home)
        keys = KeyStore.create_root(home, unit, datetime.now(UTC))
        config = Config(keys.unit, name, listen=listen, address=address, schedule=schedule, at_rest=at_rest)
        with _new_database(home, keys) as (connection, context):
            publish_root(connection, context, registry, name, starter_catalog())
            note(connection, context, Act.INIT, {"unit": keys.unit})
        configs.save(home, config)  # last: this is what says that the node is there
    return config


async def join(
    home: Path,
    invitation: Invitation,
    *,
    listen: str,
    schedule: Schedule,
    address: str = "",
    at_rest: AtRest = PLAIN_AT_REST,
) -> Config:
    """Be certified by the parent, then fetch registry and catalogues. Raises Refused, LinkFault, AlreadySetUp,
    NoSecret, BadSecret.

    Interrupted, it is run again with the same invitation: the same request gets the same answer.
    """
    _check_empty(home)
    secret.expect(home, at_rest)
    platform.make_private_dir(home)
    with platform.HomeLock(home):
        _check_empty(home)
        pending = key_files.request(home, invitation.unit, with_ca=True)
        answer = await enrol(invitation, pending)
        keys = KeyStore.install(home, list(answer.node_path), answer.ca_certificate, invitation.tree_id)
        config = Config(keys.unit, answer.name, invitation.address, listen, address, schedule=schedule, at_rest=at_rest)
        await asyncio.to_thread(make_database, home, keys, answer)
        configs.save(home, config)
        node = await Node.open(home)
        try:
            await sync(node, {}, lambda _progress: None)
        except ReplicationError as fault:
            if isinstance(fault, LinkFault) or not fault.hint:
                fault.hint = "the node is ready; it fetches registry and catalogues with its first 'dongbo sync'"
            raise
        finally:
            await node.close()
    return config


def make_database(home: Path, keys: KeyStore, granted: Granted | None = None) -> None:
    """The database of a node that has been certified. Raises a RemoteFault."""
    with _new_database(home, keys) as (connection, context):
        if granted is not None:
            keep_vouched(connection, context, granted)
        note(connection, context, Act.JOIN, {"unit": keys.unit, "epoch": keys.epoch})


def keep_answer(home: Path, keys: KeyStore, granted: Granted) -> None:
    """Keep, in a home that has a database, what its parent has signed for its new key. Raises a RemoteFault."""
    with _new_database(home, keys) as (connection, context):
        keep_path(connection, tuple(granted.node_path), keys.tree_id)
        keep_vouched(connection, context, granted)


@contextmanager
def _new_database(home: Path, keys: KeyStore) -> Iterator[tuple[Connection, Context]]:
    """One transaction on a home's database, made if it is not there. Raises DiskFull or StoreFault."""
    path, context = database_path(home), context_of(keys)
    engine = open_engine(path, secret.vault(home).database_key)
    try:
        with engine.begin() as connection:
            open_database(connection, context)
            keep_path(connection, keys.node_path, keys.tree_id)
            yield connection, context
    except DBAPIError as error:
        raise fault_of(error, path) from error
    finally:
        engine.dispose()

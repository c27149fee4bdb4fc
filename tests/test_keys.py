"""A home's keys and certificates: their lives, their files, and the lock of the home."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from conflict.values import UnitPath
from node import authority, invitation, keys, pem, platform, transport
from node.keys import KeyFault, KeyStore
from sync_engine.certificates import check_signature, verify_node_path
from sync_engine.errors import BadCertificate, DiskFull, HomeLocked, NotSetUp, WrongTree
from tests.pki import DEEPEST, NOW, answer, join


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore.create_root(tmp_path_factory.mktemp("vn"), "vn", NOW)


# --- lives -----------------------------------------------------------------------------------------------------------


def test_what_a_store_signs_is_checked_with_its_certificate(root: KeyStore) -> None:
    check_signature(root.certified.public_key, "receipt", b"body", root.signer()("receipt", b"body"))


def test_a_lost_answer_is_asked_for_again_in_the_same_words(root: KeyStore, tmp_path: Path) -> None:
    first = keys.request(tmp_path, "hue.vn", with_ca=True)
    again = keys.request(tmp_path, "hue.vn", with_ca=True)
    assert first == again
    assert first.key.public_key() == again.key.public_key()


def test_a_recovery_never_goes_on_with_an_epoch_that_an_old_image_held(tmp_path: Path) -> None:
    old = keys.request(tmp_path, "hue.vn", with_ca=True)
    new = keys.request(tmp_path, "hue.vn", with_ca=True, fresh=True)
    assert new.epoch != old.epoch
    assert new.key.public_key() != old.key.public_key()


def test_a_new_life_signs_before_it_is_certified(root: KeyStore, tmp_path: Path) -> None:
    home = join(root, tmp_path, "hue.vn").home
    new = keys.request(home, "hue.vn", with_ca=False)
    signature = new.signer()("batch", b"sealed at once")
    node_path, _ = answer(root, new)
    check_signature(verify_node_path(node_path, root.tree_id).public_key, "batch", b"sealed at once", signature)


def test_a_rotation_changes_the_node_key_and_keeps_the_ca(root: KeyStore, tmp_path: Path) -> None:
    before = join(root, tmp_path, "hue.vn")
    waiting = keys.request(tmp_path, "hue.vn", with_ca=False)
    assert KeyStore.load(tmp_path).epoch == before.epoch  # until the answer is here, the old life goes on
    after = KeyStore.install(tmp_path, *answer(root, waiting), root.tree_id)
    assert after.epoch == waiting.epoch != before.epoch
    assert after.ca_path == before.ca_path
    assert keys.pending(tmp_path) is None


def test_a_renewal_keeps_key_and_epoch(root: KeyStore, tmp_path: Path) -> None:
    before = join(root, tmp_path, "hue.vn")
    request = authority.node_request("hue.vn", before.epoch, before.key)
    later = NOW + timedelta(days=3650)
    node_path, _ = invitation.grant(
        root, unit="hue.vn", epoch=before.epoch, node_request=request, ca_request=b"", deepest_level=DEEPEST, now=later
    )
    after = KeyStore.install(tmp_path, node_path, b"", root.tree_id)
    assert (after.epoch, after.certified.public_key) == (before.epoch, before.certified.public_key)
    assert after.certified.not_after > before.certified.not_after
    assert after.ca_path == before.ca_path


def test_an_old_image_of_the_keys_names_the_old_epoch(root: KeyStore, tmp_path: Path) -> None:
    first = join(root, tmp_path / "home", "hue.vn")
    shutil.copytree(tmp_path / "home", tmp_path / "image")
    KeyStore.install(first.home, *answer(root, keys.request(first.home, "hue.vn", with_ca=False)), root.tree_id)
    assert KeyStore.load(tmp_path / "image").epoch == first.epoch


def test_an_answer_for_other_keys_or_another_tree_is_refused_and_changes_nothing(
    root: KeyStore, tmp_path: Path
) -> None:
    waiting = keys.request(tmp_path, "hue.vn", with_ca=True)
    node_path, ca = answer(root, waiting)
    others = keys.request(tmp_path / "other", "hue.vn", with_ca=True)
    others_path, others_ca = answer(root, others)
    before = listing(tmp_path)
    for path, certificate, tree, error in (
        (others_path, ca, root.tree_id, BadCertificate),
        (node_path, others_ca, root.tree_id, BadCertificate),
        (node_path, node_path[0], root.tree_id, BadCertificate),
        (node_path, b"\x30\x00", root.tree_id, BadCertificate),
        (node_path, ca, b"\0" * 32, WrongTree),
    ):
        with pytest.raises(error):
            KeyStore.install(tmp_path, path, certificate, tree)
    assert listing(tmp_path) == before
    assert KeyStore.install(tmp_path, node_path, ca, root.tree_id).unit == "hue.vn"


def listing(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "keys").iterdir()}


# --- files -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("step", range(1, 30))
def test_a_kill_at_any_step_leaves_the_old_life_or_the_new_one(
    root: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A rotation of both keys, killed at its n-th change of a name in the directory, then done again."""
    old = join(root, tmp_path, "hue.vn")
    left = step

    def counted(change: Callable[..., object]) -> Callable[..., object]:
        def perform(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return change(*arguments, **options)

        return perform

    answers: dict[str, tuple[tuple[bytes, ...], bytes]] = {}

    def rotate() -> KeyStore:
        waiting = keys.request(tmp_path, "hue.vn", with_ca=True)
        given = answers.setdefault(waiting.epoch, answer(root, waiting))
        return KeyStore.install(tmp_path, *given, root.tree_id)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", counted(Path.replace))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        try:
            rotate()
        except Killed:
            found = None
        else:
            found = KeyStore.load(tmp_path)
    survived = KeyStore.load(tmp_path)
    assert survived.ca_certificate is not None
    assert survived.epoch in {old.epoch, *answers}
    if found is not None:
        assert survived.epoch != old.epoch
    assert (survived.ca_path == old.ca_path) == (survived.epoch == old.epoch)  # never one of each
    again = rotate() if survived.epoch == old.epoch else survived
    assert again.epoch != old.epoch
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"node.key", "node.pem", "ca.key", "ca.pem"}


def test_a_ca_certificate_that_a_kill_left_waiting_goes_with_the_life_it_was_for(
    root: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = join(root, tmp_path, "hue.vn")
    waiting = keys.request(tmp_path, "hue.vn", with_ca=True)
    real = platform.write_private

    def killed_at_the_commit(path: Path, data: bytes) -> None:
        if path.name == "node.pem":
            raise Killed
        real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(platform, "write_private", killed_at_the_commit)
        with pytest.raises(Killed):
            KeyStore.install(tmp_path, *answer(root, waiting), root.tree_id)
    other = keys.request(tmp_path, "hue.vn", with_ca=False)
    assert KeyStore.install(tmp_path, *answer(root, other), root.tree_id).ca_path == old.ca_path


def test_the_kill_test_reaches_past_the_last_step(
    root: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its range would have to grow."""
    join(root, tmp_path, "hue.vn")
    steps: list[str] = []
    for name in ("replace", "unlink"):
        real = getattr(Path, name)

        def noted(*arguments: object, _real: Callable[..., object] = real, **options: object) -> object:
            steps.append("")
            return _real(*arguments, **options)

        monkeypatch.setattr(Path, name, noted)
    KeyStore.install(tmp_path, *answer(root, keys.request(tmp_path, "hue.vn", with_ca=True)), root.tree_id)
    assert 20 < len(steps) < 30


@pytest.mark.skipif(os.name == "nt", reason="modes mean nothing there")
def test_keys_are_readable_by_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        KeyStore.create_root(tmp_path, "vn", NOW)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == dict.fromkeys(("node.key", "ca.key", "node.pem", "ca.pem"), 0o600)


@pytest.mark.skipif(os.name == "nt", reason="modes mean nothing there")
@pytest.mark.parametrize("name", ["node.key", "ca.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_is_refused_with_the_way_out(tmp_path: Path, name: str, mode: int) -> None:
    KeyStore.create_root(tmp_path, "vn", NOW)
    (tmp_path / "keys" / name).chmod(mode)
    with pytest.raises(KeyFault, match="others") as refused:
        KeyStore.load(tmp_path)
    assert "chmod 600" in refused.value.hint


@pytest.mark.skipif(os.name == "nt", reason="modes mean nothing there")
def test_a_private_file_is_never_readable_by_others_not_even_while_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = os.fsync

    def looking(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077)
        real(descriptor)

    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "fsync", looking)
    platform.write_private(tmp_path / "secret", b"x")
    assert seen == [0, 0]  # the file, then its directory


def test_a_full_disk_leaves_the_old_file_and_no_scraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.write_private(tmp_path / "secret", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(DiskFull):
            platform.write_private(tmp_path / "secret", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"secret": b"old"}


DAMAGED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a key that is no key": ("node.key", lambda keys_: platform.write_private(keys_ / "node.key", b"scrap")),
    "a key of someone else": (
        "does not belong",
        lambda keys_: platform.write_private(keys_ / "node.key", pem.key_to_pem(authority.new_key())),
    ),
    "no key": ("node.key", lambda keys_: (keys_ / "node.key").unlink()),
    "an empty certificate file": ("node.pem", lambda keys_: platform.write_private(keys_ / "node.pem", b"")),
    "a CA key of someone else": (
        "ca.key",
        lambda keys_: platform.write_private(keys_ / "ca.key", pem.key_to_pem(authority.new_key())),
    ),
}


@pytest.mark.parametrize(("reason", "damage"), DAMAGED.values(), ids=DAMAGED)
def test_keys_that_do_not_fit_together_are_refused(
    tmp_path: Path, reason: str, damage: Callable[[Path], object]
) -> None:
    KeyStore.create_root(tmp_path, "vn", NOW)
    damage(tmp_path / "keys")
    with pytest.raises(KeyFault, match=reason) as refused:
        KeyStore.load(tmp_path)
    assert refused.value.hint


def test_an_empty_home_is_not_set_up(tmp_path: Path) -> None:
    with pytest.raises(NotSetUp):
        KeyStore.load(tmp_path)
    keys.request(tmp_path, "hue.vn", with_ca=True)
    with pytest.raises(NotSetUp):  # asked, not answered yet
        KeyStore.load(tmp_path)


def test_tls_gets_the_chain_without_the_root(root: KeyStore, tmp_path: Path) -> None:
    province = join(root, tmp_path / "hue", "hue.vn")
    district = join(province, tmp_path / "phu-vang", "phu-vang.hue.vn")
    chain = x509.load_pem_x509_certificates(district.tls_chain_pem)
    assert tuple(authority.der_of(one) for one in chain) == district.node_path[:-1]
    assert pem.from_pem(district.tls_root_pem) == root.node_path[-1:]
    assert pem.key_from_pem(district.tls_key_pem).public_key() == district.certified.public_key
    assert chain[0].subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value == district.epoch


# --- the home's lock -------------------------------------------------------------------------------------------------

HOLD = "import sys, pathlib; from node.platform import HomeLock; HomeLock(pathlib.Path(sys.argv[1])).acquire()"
HOLD += "; print('held', flush=True); sys.stdin.read()"


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with platform.HomeLock(tmp_path), pytest.raises(HomeLocked) as refused, platform.HomeLock(tmp_path):
        pass
    assert refused.value.hint
    with platform.HomeLock(tmp_path):
        pass


def test_a_killed_holder_leaves_no_lock_behind(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "proto")))}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        with pytest.raises(HomeLocked):
            platform.HomeLock(tmp_path).acquire()
        holder.kill()
        holder.wait()
        with platform.HomeLock(tmp_path):
            pass


def test_the_clock_at_boot_does_not_matter_to_what_was_issued(tmp_path: Path) -> None:
    made = KeyStore.create_root(tmp_path, "vn", datetime(1970, 1, 1, tzinfo=UTC))
    assert made.certified.not_after.year > 2050


def test_a_server_gives_grpc_a_certificate_only_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC drops the one before it under whoever is shaking hands: a province died of that."""
    stores = [KeyStore.create_root(fresh(tmp_path / name), UnitPath("vn"), datetime.now(UTC)) for name in "ab"]
    given: list[Any] = []
    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", lambda first, fetch, **_: given.extend((first, fetch)))
    transport.living_credentials(lambda: stores[0])
    first, fetch = given
    assert first is not None
    assert fetch() is None
    stores[0] = stores[1]
    assert fetch() is not None
    assert fetch() is None


def fresh(path: Path) -> Path:
    path.mkdir()
    return path

"""What a unit's CA issues, and which requests it takes."""

from __future__ import annotations

import pytest

from node import authority
from sync_engine.errors import BadCertificate, BadName
from tests.pki import COMMUNE, DISTRICT, EPOCH, NOW, PROVINCE, ROOT, Tree

TREE = Tree(ROOT)


def test_a_ca_issues_for_its_own_children_only() -> None:
    key = authority.new_key().public_key()
    ca = TREE.ca(PROVINCE)
    for unit in (COMMUNE, PROVINCE, ROOT, "son-tra.da-nang.vn", "xhue.vn"):
        with pytest.raises(BadName):
            authority.issue_node(*ca, unit, EPOCH, key, NOW)
        with pytest.raises(BadName):
            authority.issue_ca(*ca, unit, key, 3)
        with pytest.raises(BadName):
            authority.issue_enrolment(*ca, unit, key, NOW)


def test_the_deepest_level_gets_no_ca() -> None:
    with pytest.raises(BadName):
        authority.issue_ca(*TREE.ca(DISTRICT), COMMUNE, authority.new_key().public_key(), 3)


def test_a_path_too_long_for_a_dns_name_is_refused_before_it_is_certified() -> None:
    label = "a" * 32
    tree = Tree(label, deepest_level=15)
    with pytest.raises(BadName, match="too long"):
        tree.ca(".".join([label] * 8))


def test_a_request_is_taken_only_for_its_own_unit_and_epoch() -> None:
    key = authority.new_key()
    request = authority.node_request(COMMUNE, EPOCH, key)
    assert authority.check_request(request, COMMUNE, EPOCH) == key.public_key()
    assert authority.named_in_request(request) == (COMMUNE, EPOCH)
    for unit, epoch in ((DISTRICT, EPOCH), (COMMUNE, "00000000000000a2"), (COMMUNE, None)):
        with pytest.raises(BadCertificate):
            authority.check_request(request, unit, epoch)


def test_a_request_for_a_key_that_its_sender_does_not_hold_is_refused() -> None:
    mine, theirs = authority.new_key(), authority.new_key()
    request = bytearray(authority.node_request(COMMUNE, EPOCH, mine))
    point = mine.public_key().public_numbers().x.to_bytes(32, "big")
    numbers = theirs.public_key().public_numbers()
    place = bytes(request).index(point)
    request[place : place + 64] = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    with pytest.raises(BadCertificate, match="not signed"):
        authority.check_request(bytes(request), COMMUNE, EPOCH)


def test_epochs_are_drawn_not_counted() -> None:
    drawn = {authority.new_epoch() for _ in range(100)}
    assert len(drawn) == 100
    assert all(len(epoch) == 16 for epoch in drawn)

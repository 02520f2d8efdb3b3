"""Keys that hand over: mirrors that were away, keys that are retired, and what is no handover."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from contracts.errors import EquivocationError, MalformedError, SignatureError
from contracts.layout import POINTER_KEY
from contracts.minisign import SecretKey
from contracts.succession import succession_keys
from mirror.keys import MAX_SUCCESSIONS
from tests.mirror.chain import Chain
from tests.mirror.simulator import EVIL, A, B, C, D, Site


@pytest.fixture
def site(chain: Chain, tmp_path: Path) -> Site:
    return Site(chain, tmp_path)


def test_mirror_that_was_away_follows_several_rotations(site: Site) -> None:
    site.publish(0)
    site.sync()
    for old, new in ((A, B), (B, C), (C, D)):
        site.hand_over(old, new)
    site.publish(1, key=D)
    assert site.sync().signed_by == D.public.key_id
    assert site.serves(1)


def test_fresh_mirror_follows_from_the_key_it_was_given_years_ago(site: Site) -> None:
    site.hand_over(A, B)
    site.hand_over(B, C)
    site.publish(0, key=B)
    assert site.sync().signed_by == B.public.key_id, "no further than the signer"


def rotate(site: Site) -> None:
    """A hands over to B, and the mirror follows."""
    site.publish(0)
    site.sync()
    site.hand_over(A, B)
    site.publish(1, key=B)
    site.sync()


def test_retired_key_signs_nothing_new(site: Site) -> None:
    """Whoever finds it years later; the mirror remembers, also when the store forgets."""
    rotate(site)
    for key in succession_keys(A.public.key_id):
        del site.objects[key]
    site.publish(2, key=A)
    site.mirror = site.open(A)
    with pytest.raises(SignatureError, match="signed by key 4141414141414141, which has handed over"):
        site.sync()
    assert site.serves(1)
    site.publish(2, key=B)
    assert site.sync().outcome == "updated"


def test_stale_pointer_of_a_retired_key_is_no_alarm(site: Site) -> None:
    """An honest cache may serve it for a day."""
    site.publish(0)
    old_pointer = site.objects[POINTER_KEY]
    rotate(site)
    site.objects[POINTER_KEY] = old_pointer
    assert site.sync().outcome == "stale"


def test_stale_pointer_of_a_key_that_is_pinned_no_more_is_no_alarm(site: Site) -> None:
    site.publish(0)
    old_pointer = site.objects[POINTER_KEY]
    rotate(site)
    site.objects[POINTER_KEY] = old_pointer
    site.mirror = site.open(B)
    assert site.sync().outcome == "stale"


def test_second_successor_of_one_key_is_equivocation(site: Site) -> None:
    """Whoever has stolen the old key comes too late."""
    rotate(site)
    site.hand_over(A, D)
    site.publish(2, key=D)
    with pytest.raises(EquivocationError, match="followed it to key 4242424242424242"):
        site.sync()
    assert site.serves(1)


def test_handover_alone_changes_nothing(site: Site) -> None:
    """Only what the new key signs does; until then the old one goes on."""
    site.publish(0)
    site.sync()
    site.hand_over(A, B)
    site.publish(1, key=A)
    assert site.sync().signed_by == A.public.key_id


def test_refused_manifest_retires_nobody(site: Site) -> None:
    site.publish(0)
    site.sync()
    site.hand_over(A, B)
    site.objects[POINTER_KEY] = b"{}"
    site.sign(B)
    with pytest.raises(MalformedError):
        site.sync()
    site.publish(1, key=A)
    assert site.sync().signed_by == A.public.key_id


def test_handover_without_its_signature_is_not_there_yet(site: Site) -> None:
    site.publish(0, key=B)
    site.hand_over(A, B)
    signature_key = succession_keys(A.public.key_id)[1]
    signature = site.objects.pop(signature_key)
    with pytest.raises(SignatureError, match="this mirror trusts 4141414141414141"):
        site.sync()
    site.objects[signature_key] = signature
    assert site.sync().signed_by == B.public.key_id


def test_forged_handover_is_refused(site: Site) -> None:
    site.hand_over(EVIL, B)
    site.publish(0, key=B)
    with pytest.raises(SignatureError, match="not what key 4141414141414141 has signed"):
        site.sync()


def test_handovers_in_a_circle_are_refused(site: Site) -> None:
    site.hand_over(A, B)
    site.hand_over(B, A)
    site.publish(0, key=C)
    with pytest.raises(SignatureError, match="circle"):
        site.sync()


def test_handovers_come_to_an_end(site: Site) -> None:
    keys = [A] + [SecretKey(number.to_bytes(8, "big"), b"k" * 32) for number in range(MAX_SUCCESSIONS + 1)]
    for old, new in pairwise(keys):
        site.hand_over(old, new)
    site.publish(0, key=keys[MAX_SUCCESSIONS])
    assert site.sync().signed_by == keys[MAX_SUCCESSIONS].public.key_id
    site.publish(1, key=keys[-1])
    with pytest.raises(SignatureError, match="more than 64 times"):
        site.sync()
    site.mirror = site.open(keys[-1])
    assert site.sync().signed_by == keys[-1].public.key_id


def test_pinning_old_and_new_is_no_circle(site: Site) -> None:
    site.mirror = site.open(A, B)
    site.hand_over(A, B)
    site.hand_over(B, C)
    site.publish(0, key=C)
    assert site.sync().signed_by == C.public.key_id


def test_reset_trust_forgets_who_has_handed_over(site: Site) -> None:
    """So the newest key is pinned first (docs/security.md)."""
    rotate(site)
    site.mirror.reset_trust()
    site.publish(2, key=A)
    assert site.sync().signed_by == A.public.key_id


def test_memory_of_handovers_outlives_a_time_without_signatures(site: Site) -> None:
    rotate(site)
    site.publish(2, key=None)
    assert site.open().sync().signed_by is None
    site.publish(3, key=A)
    with pytest.raises(SignatureError, match="handed over"):
        site.sync()

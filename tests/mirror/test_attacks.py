"""Attacks on what a mirror believes: one test for each, over memory and over real HTTP.

`Site.attack` says what holds after every one of them. The names are those of the TUF specification, section
1.5.2; docs/security.md has a row for each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.digests import digest_bytes
from contracts.errors import EquivocationError, ExpiredError, RollbackError, SignatureError
from contracts.layout import POINTER_KEY
from contracts.manifest import parse_manifest
from mirror import Mirror
from tests.mirror.chain import Chain, serves
from tests.mirror.simulator import EVIL, A, B, Site, later

LAST_SEQUENCE = 2**53 - 1  # docs/format.md, "The manifest"


def test_arbitrary_manifest_that_nobody_signed(attacked: Site) -> None:
    with attacked.attack(SignatureError, "is not signed: the store has no manifests/"):
        attacked.forge(None, snapshot_id="evil")


def test_arbitrary_manifest_with_the_signature_of_the_true_one(attacked: Site) -> None:
    with attacked.attack(SignatureError, "not what key 4141414141414141 has signed"):
        signature = attacked.objects[attacked.signature_key()]
        attacked.forge(None, snapshot_id="evil")
        attacked.objects[attacked.signature_key()] = signature


def test_arbitrary_manifest_signed_by_a_stranger(attacked: Site) -> None:
    with attacked.attack(SignatureError, "signed by key 4242424242424242; this mirror trusts 41414141414"):
        attacked.forge(B)


def test_arbitrary_manifest_signed_by_a_key_with_a_borrowed_number(attacked: Site) -> None:
    with attacked.attack(SignatureError, "not what key 4141414141414141 has signed"):
        attacked.forge(EVIL)


def test_rollback(attacked: Site) -> None:
    """An old manifest, truly signed: stale for as long as honest caches serve one, then an alarm."""
    attacked.sync()
    with attacked.attack(RollbackError, "nothing newer than sequence 1 since", afterwards="unchanged"):
        attacked.objects[POINTER_KEY] = attacked.history[0]
        assert attacked.sync().outcome == "stale"
        attacked.clock.now = later(seconds=86_476)


def test_rollback_that_hides_an_expiry(attacked: Site) -> None:
    """Whoever serves an old manifest now and then must not silence what is to be said of the newest."""
    attacked.sync()
    with attacked.attack(ExpiredError, "snapshot 2 expired", afterwards="unchanged"):
        attacked.clock.now = later(days=13, hours=23)
        attacked.sync()
        attacked.objects[POINTER_KEY] = attacked.history[0]
        attacked.clock.now = later(days=14)


def test_fast_forward_by_a_stranger(attacked: Site) -> None:
    """The sequence of a manifest that is not believed is not remembered."""
    with attacked.attack(SignatureError, "not what key"):
        attacked.forge(EVIL, sequence=LAST_SEQUENCE)


def test_fast_forward_by_the_true_key(attacked: Site) -> None:
    """A thief, or a publisher gone wrong: nothing that is lower is taken any more, which an alarm says in
    the end.

    docs/security.md, "When it is stolen": a new key is pinned, and what was seen is forgotten by hand.
    """
    attacked.forge(A, sequence=LAST_SEQUENCE)
    assert attacked.sync().outcome == "updated"
    attacked.publish(2)
    assert attacked.sync().outcome == "stale"
    attacked.clock.now = later(days=2)
    with pytest.raises(RollbackError, match=f"although {LAST_SEQUENCE} was published"):
        attacked.sync()
    assert attacked.serves(1)
    attacked.publish(2, key=B)
    attacked.mirror = attacked.open(B)
    with pytest.raises(RollbackError):
        attacked.sync()
    attacked.mirror.reset_trust()
    assert attacked.sync().outcome == "updated"
    assert attacked.serves(2)
    attacked.publish(3, key=B)
    assert attacked.sync().outcome == "updated"


def test_freeze(attacked: Site) -> None:
    """The manifest of today, for ever: good until it expires, whether it is sent again or "not modified"."""
    with attacked.attack(ExpiredError, "snapshot 1 expired at 2026-12-06 12:00:00 UTC; .* not renewed it"):
        attacked.objects[POINTER_KEY] = attacked.history[0]
        for time in ({"days": 7}, {"days": 14, "minutes": -30}):
            attacked.clock.now = later(**time)
            assert attacked.sync().outcome == "unchanged"
        attacked.clock.now = later(days=14)


@pytest.mark.parametrize("kind", ["any", "endless", "of the next manifest"])
def test_freeze_by_an_entity_tag(attacked: Site, kind: str) -> None:
    """What comes with one answer is sent with the next question. An entity tag that is no true one, or the
    next manifest's, would get "not modified" from an honest server as well, or be too long for it."""
    attacked.sync()
    true = attacked.history[1]
    attacked.publish(2)
    etag = {
        "any": "*",
        "endless": f'"{"x" * 60_000}"',
        "of the next manifest": f'"{digest_bytes(attacked.objects[POINTER_KEY])}"',
    }[kind]
    attacked.answer(POINTER_KEY, content=true, announced_bytes=len(true), etag=etag)
    assert attacked.sync().outcome == "unchanged"
    attacked.edge.answers.clear()
    attacked.clock.now = later(hours=1, seconds=1)
    assert attacked.sync().outcome == "updated"
    assert attacked.serves(2)


def test_equivocation(attacked: Site) -> None:
    """Two manifests with one sequence, both truly signed: two publishers with one key, or a thief."""
    attacked.sync()
    with attacked.attack(
        EquivocationError, "another manifest of sequence 2 than before", afterwards="unchanged"
    ):
        attacked.forge(sequence=2, publish_id="f" * 32)


def test_manifest_of_another_repository(attacked: Site) -> None:
    """Truly signed, by somebody who uses one key for two buckets."""
    with attacked.attack(EquivocationError, "serves repository f{32}; this mirror follows a{32}"):
        attacked.forge(repository="f" * 32, sequence=99)


def test_mix_and_match_of_signatures(attacked: Site) -> None:
    with attacked.attack(SignatureError, "not what key"):
        attacked.objects[attacked.signature_key()] = A.sign(attacked.history[0], "of yesterday")


def test_retired_key(attacked: Site) -> None:
    """Whoever finds a key that has handed over."""
    attacked.hand_over(A, B)
    attacked.publish(2, key=B)
    attacked.sync()
    with attacked.attack(SignatureError, "4141414141414141, which has handed over", afterwards="unchanged"):
        attacked.forge(A)


def test_honest_stale_edge_is_no_attack(attacked: Site) -> None:
    """Two edges of a CDN, one of them a day behind, answer in turn: nothing is raised, nothing goes back."""
    attacked.sync()
    for hour in range(48):
        attacked.clock.now = later(hours=hour)
        attacked.objects[POINTER_KEY] = attacked.history[hour % 2]
        assert attacked.sync().outcome == ("unchanged" if hour % 2 else "stale")
        assert attacked.serves(1)


def test_mirror_that_believes_everybody_still_moves_only_forward(chain: Chain, tmp_path: Path) -> None:
    """Without signatures, rollback and another repository are alarms all the same."""
    site = Site(chain, tmp_path)
    mirror: Mirror = site.open()
    site.publish(0, key=None)
    site.publish(1, key=None)
    mirror.sync()
    newest = parse_manifest(site.objects[POINTER_KEY])
    site.objects[POINTER_KEY] = site.history[0]
    site.clock.now = later(days=2)
    with pytest.raises(RollbackError):
        mirror.sync()
    site.serve(replace(newest, repository="f" * 32), key=None)
    with pytest.raises(EquivocationError):
        mirror.sync()
    assert serves(mirror, chain.files[1])

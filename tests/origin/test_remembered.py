"""What is remembered: for its life, for its version, and no more than so much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from origin.remembered import Remembered


def test_answer_counts_for_its_life_and_its_version() -> None:
    kept: Remembered[str, int] = Remembered(10, 1.0)
    kept.put("a", 7, 1, 100.0)
    assert kept.get("a", 1, 100.9) == 7
    assert kept.get("a", 2, 100.9) is None
    assert kept.get("a", 1, 101.0) is None
    assert kept.get("b", 1, 100.0) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.sampled_from([0.0, 0.3, 2.0]))))
def test_never_an_old_answer_and_never_too_many(steps: list[tuple[int, int, float]]) -> None:
    """Against a dictionary that forgets nothing."""
    kept: Remembered[int, float] = Remembered(4, 1.0)
    model: dict[int, tuple[int, float]] = {}
    now = 0.0
    for key, version, passed_s in steps:
        now += passed_s
        found = kept.get(key, version, now)
        if found is not None:
            assert model[key] == (version, found)
            assert now - found < 1.0
        kept.put(key, now, version, now)
        model[key] = (version, now)
        assert kept.get(key, version, now) == now
        assert len(kept) <= 4

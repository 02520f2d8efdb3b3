"""A long chain of deltas for every test here that wants one: making it takes seconds, copying it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mirror import Mirror
from tests.faults import FaultyStore
from tests.mirror.chain import NOW, PUBLISHES, Chain
from tests.mirror.simulator import WAYS, Site, serving


@pytest.fixture(scope="session")
def _long_chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    chain = Chain(tmp_path_factory.mktemp("chain"))
    chain.grow(PUBLISHES)
    return chain


@pytest.fixture
def chain(_long_chain: Chain) -> Chain:
    """A chain of a hundred deltas, in a bucket of one's own."""
    return _long_chain.copy()


@pytest.fixture
def watched(chain: Chain) -> FaultyStore:
    """The bucket of the chain, with a record of what is asked of it."""
    return FaultyStore(chain.store)


@pytest.fixture
def mirror(watched: FaultyStore, tmp_path: Path) -> Mirror:
    """A fresh mirror of the chain."""
    return Mirror(tmp_path / "mirror", watched, now=lambda: NOW, unsigned=True)


@pytest.fixture(params=WAYS)
def attacked(request: pytest.FixtureRequest, chain: Chain, tmp_path: Path) -> Iterator[Site]:
    """A mirror that serves the first snapshot, in memory and over HTTP; a second one has been published."""
    site = Site(chain, tmp_path)
    with ExitStack() as stack:
        if request.param == "http":
            stack.enter_context(serving(site))
        site.publish(0)
        site.sync()
        site.publish(1)
        yield site

"""What holds for every test: Hypothesis measures nothing. A slow machine is no failure, and CI's own profile stays underneath.

Any test may ask for `postgresql`, a private cluster.
"""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from fault_matrix import Collector
from postgresql import Cluster, cluster

settings.register_profile("soundcheck", settings(), deadline=None)
settings.load_profile("soundcheck")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Collector(), "fault_matrix")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """The cluster, started when the first test asks for it; one in every process of tests."""
    try:
        with cluster() as running:
            yield running
    except LookupError as absent:
        pytest.skip(str(absent))

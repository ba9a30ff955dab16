"""A sandbox of SimpleMDM, and a provider that calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.helpers.mdm_provider import Recorder
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving

from pgfleet_local.sandboxes.simplemdm import create_sandbox


@pytest.fixture(scope="module")
def served(free_port: Callable[[], int]) -> Iterator[Sandbox]:
    with serving(create_sandbox({"full": FULL, "read_only": READ_ONLY}), free_port()) as url:
        yield Sandbox(url)


@pytest.fixture
def sandbox(served: Sandbox) -> Sandbox:
    served.control("POST", "reset")
    return served


@pytest.fixture
def recorder(sandbox: Sandbox) -> Recorder:
    return Recorder(sandbox.api)

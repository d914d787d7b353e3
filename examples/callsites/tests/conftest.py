"""A real object storage for the platform's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from examples.callsites import settings
from examples.servers import Servers


@pytest.fixture(scope="session")
def storage_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server that lasts for the session, and that the platform's settings name."""
    servers = Servers(tmp_path_factory.mktemp("storage"), dict(os.environ))
    with servers.object_storage() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "S3_ENDPOINT", server.endpoint)
        patch.setattr(settings, "S3_ACCESS_KEY", server.access_key)
        patch.setattr(settings, "S3_SECRET_KEY", server.secret_key)
        yield

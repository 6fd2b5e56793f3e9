"""Settings for the whole suite."""

import uuid

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: no test asserts a time.
settings.register_profile("wootz", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wootz")


@pytest.fixture(scope="session", autouse=True)
def _store_of_the_session(tmp_path_factory):
    """The user's own store is never touched, neither by fixtures that many tests share nor by processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_STORE", str(tmp_path_factory.getbasetemp() / "stores" / "session"))
        yield


@pytest.fixture(autouse=True)
def _store_of_the_test(_store_of_the_session, tmp_path_factory, monkeypatch):
    """Each test has a store of its own, so that none finds what another has trained."""
    monkeypatch.setenv("WOOTZ_STORE", str(tmp_path_factory.getbasetemp() / "stores" / uuid.uuid4().hex))

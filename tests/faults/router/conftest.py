"""The services that these tests break."""

from tests.contract.router.conftest import own_service  # noqa: F401

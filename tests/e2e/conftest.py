import pytest

from services.stack import precision, settings
from tests.support.stack import Stack


@pytest.fixture
def own_stack(own_stack: Stack) -> Stack:
    """As elsewhere, in the precision that is served here, but not compiled: an engine starts sooner."""
    if chosen := precision.chosen(settings.load(own_stack.home)):
        with (own_stack.home / ".env").open("a") as lines:
            lines.write(f"{precision.SETTING}={chosen.name.removesuffix('-compiled')}\n")
    return own_stack

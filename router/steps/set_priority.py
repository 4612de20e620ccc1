"""Which requests the engine serves first."""

from router.exchange import Exchange, Priority


def set_priority(exchange: Exchange) -> None:
    """Sets the `priority` of requests that go last, and of agents, which are those with tools. What else has
    another priority than a chat by now keeps it.
    """
    if exchange.flex:
        exchange.priority = Priority.BACKGROUND
    elif exchange.priority is Priority.CHAT and exchange.body.get("tools"):
        exchange.priority = Priority.AGENT

"""Which requests the engine serves first."""

from router.exchange import Exchange, Priority


def set_priority(exchange: Exchange) -> None:
    """Sets the `priority` of agents, if the request has tools. What has another priority by now keeps it."""
    if exchange.priority is Priority.CHAT and exchange.body.get("tools"):
        exchange.priority = Priority.AGENT

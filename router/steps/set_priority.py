"""Which requests the engine serves first."""

from router.exchange import Exchange, Priority


def set_priority(exchange: Exchange) -> None:
    """Sets `priority` to that of agents, if the request has tools. Autocompletions keep theirs."""
    if exchange.body.get("tools"):
        exchange.priority = Priority.AGENT

"""All that knows LiteLLM: its configuration, its key check and its pass-through endpoints."""

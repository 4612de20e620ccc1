"""Holds what was measured against the objectives in slo.toml."""

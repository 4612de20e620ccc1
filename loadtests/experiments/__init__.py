"""Measurements that compare: direct and through relays, this tool and another."""

"""Sends requests and measures them."""

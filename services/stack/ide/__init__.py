"""Configurations for the tools that developers use, from one table (config/ide.yaml)."""

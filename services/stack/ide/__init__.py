"""Configurations for the tools that developers use (config/ide.yaml). Entry point: command.py."""

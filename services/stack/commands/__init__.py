"""The commands of ./run: one file for each, or for a group that shares its work."""

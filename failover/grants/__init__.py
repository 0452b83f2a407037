"""Grants: the leader lets hosts run what they own for shares of a second at a time."""

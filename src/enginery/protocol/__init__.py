"""Meaning: bytes and records. No socket, no clock."""

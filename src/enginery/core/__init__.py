"""Decisions: sans-I/O machines. No socket, clock, thread, randomness or logging; time is an argument."""

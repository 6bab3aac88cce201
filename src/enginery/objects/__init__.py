"""Meaning: Python objects and the bytes and buffers that stand for them. No socket, no clock.

* `packing`: values, out of band where they hold big buffers;
* `functions`: functions by value, with the engine's namespace as their globals;
* `failures`: exceptions, from an engine to a client.

`pickling`, `companions` and `sources` are what the three are made of.
"""

"""Meaning: Python objects and the bytes and buffers that stand for them. No socket, no clock.

* `packing`: values, out of band where they hold big buffers;
* `functions`: functions by value, with the engine's namespace as their globals;
* `failures`: exceptions, from an engine to a client;
* `reference`, `prepickled`, `serializers`, `libraries`: what users say of how things travel;
* `canning`, `lowlevel`: the same by hand, as ipyparallel has it.

`pickling`, `arrays`, `companions`, `arrival`, `extensions` and `sources` are what these are made of.
"""

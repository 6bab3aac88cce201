"""ipyparallel's path to what makes bytes of objects. It lives in `enginery.objects`."""

from enginery.objects.canning import can, can_map, uncan, uncan_map
from enginery.objects.libraries import use_cloudpickle, use_dill, use_pickle
from enginery.objects.lowlevel import (
    deserialize_object,
    pack_apply_message,
    serialize_object,
    unpack_apply_message,
)
from enginery.objects.prepickled import PrePickled
from enginery.objects.reference import Reference

__all__ = [
    "PrePickled",
    "Reference",
    "can",
    "can_map",
    "deserialize_object",
    "pack_apply_message",
    "serialize_object",
    "uncan",
    "uncan_map",
    "unpack_apply_message",
    "use_cloudpickle",
    "use_dill",
    "use_pickle",
]

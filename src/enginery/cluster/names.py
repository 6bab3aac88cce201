"""Names of clusters: given by people, or made up for clusters that end with the script that starts them."""

from __future__ import annotations

import re
import secrets

from enginery.transport.addresses import DEFAULT_NAME

_MADE_UP = re.compile(r"cluster-[0-9a-f]{8}")


def make_up_name() -> str:
    return f"cluster-{secrets.token_hex(4)}"


def is_given(name: str) -> bool:
    """Tell whether somebody chose this name. Only such a cluster keeps history and logs when it stops."""
    return name != DEFAULT_NAME and not _MADE_UP.fullmatch(name)

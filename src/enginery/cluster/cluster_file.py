"""The cluster file: what a process of the same user needs to act as the one that has started a cluster.

It holds no keys; those are in the connection file that it names.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from enginery.errors import ClusterNotFound, ConnectionFileError

FORMAT = 1


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the file with mode 0600; readers see the whole of it or nothing."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **content}, file, indent=2)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a cluster file. Raises ClusterNotFound, or ConnectionFileError if it is of no use."""
    name = os.fspath(path)
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClusterNotFound(path=name) from None
    except (OSError, ValueError) as error:
        raise ConnectionFileError(name, f"cannot be read as a cluster file: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or "cluster" not in content:
        raise ConnectionFileError(name, f"is no cluster file of format {FORMAT}; start the cluster again")
    return content

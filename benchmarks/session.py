"""One session of one system, in its own process: the harness runs `python -m benchmarks.session ORDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.harness import find_systems, run_session

if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    found = run_session(find_systems()[order["system"]], order["workloads"])
    Path(order["answer"]).write_text(json.dumps(found))

"""A client that is to be killed: submits tasks, and says which of them the controller has safe.

``python -m tests.chaos.guest CONNECTION_FILE``; each line is ``id number``, for a task
`deeds.square(number)`.
"""

from __future__ import annotations

import sys

import enginery as ipp
from enginery.ids import parse_task_id
from tests.chaos.deeds import square

BATCH = 40
AT_ONCE = 200


def main(connection_file: str) -> None:
    rc = ipp.Client(connection_file)
    view = rc.load_balanced_view(retries=20)
    number = 0
    while True:
        results = {view.apply_async(square, number + place): number + place for place in range(BATCH)}
        number += BATCH
        tasks = [parse_task_id(ar.msg_ids[0]) for ar in results]
        rc.session.wait_until(lambda tasks=tasks: rc.session.is_accepted(tasks), None)  # type: ignore[misc]
        lines = [f"{ar.msg_ids[0]} {argument}\n" for ar, argument in results.items()]
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
        while len(rc.outstanding) > AT_ONCE:
            rc.wait(timeout=1)


if __name__ == "__main__":
    main(sys.argv[1])

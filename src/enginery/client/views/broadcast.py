"""BroadcastView: the former name of what every DirectView does."""

from __future__ import annotations

from enginery.client.views.direct import DirectView


class BroadcastView(DirectView):
    """A `DirectView`: each of its calls is one message for all targets, and results are in their order.

    `is_coalescing` is accepted and kept; results always come in batches.
    """

    is_coalescing: bool = False

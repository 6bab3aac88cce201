"""ipyparallel's path to the views. They live in `enginery.client.views`."""

from enginery.client.executor import ViewExecutor
from enginery.client.imap import LazyMapIterator
from enginery.client.views.balanced import LoadBalancedView
from enginery.client.views.broadcast import BroadcastView
from enginery.client.views.direct import DirectView
from enginery.client.views.view import View

__all__ = ["BroadcastView", "DirectView", "LazyMapIterator", "LoadBalancedView", "View", "ViewExecutor"]

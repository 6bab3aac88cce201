"""Views: the two ways to say where calls run."""

from enginery.client.views.balanced import LoadBalancedView
from enginery.client.views.broadcast import BroadcastView
from enginery.client.views.direct import DirectView
from enginery.client.views.view import View

__all__ = ["BroadcastView", "DirectView", "LoadBalancedView", "View"]

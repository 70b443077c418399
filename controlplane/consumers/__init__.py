"""The server's WebSockets beside the control protocol: one module for the panel's pages, one for relays."""

from __future__ import annotations

from controlplane.consumers.panel import PANEL_SOCKETS
from controlplane.consumers.relay import RelayConsumer

__all__ = ["PANEL_SOCKETS", "RelayConsumer"]

"""Paths between nodes: direct over WireGuard's own UDP port, and relayed over DERP."""

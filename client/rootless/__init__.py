"""A tunnel without root: WireGuard in a network namespace of the user's own, and the ways into it."""

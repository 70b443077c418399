"""A small internet in network namespaces: a real server, Trenza's client, official clients, NATs between them.

``net`` makes namespaces, routers and NATs; ``processes`` runs programs in them; ``server``, ``person``,
``trenza`` and ``official`` are the parties; ``traffic`` measures what flows. Tests need root (marker ``root``).
"""

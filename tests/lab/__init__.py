"""A small internet in network namespaces: a real server, Trenza's and official clients, NATs between them.

``net`` makes namespaces, routers and NATs; ``processes`` runs programs in them; ``server``, ``person``,
``trenza`` and ``official`` are the parties; ``traffic`` measures what flows. All of it needs root.
"""

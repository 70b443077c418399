"""The node's own DNS server: names of the tailnet, split DNS, forwarding. Pure first, then the sockets.

``names`` and ``config`` (what holds), ``answers`` (what is known here), ``upstream`` and ``doh`` (who else is
asked), ``resolver`` (one query), ``server`` (the sockets), ``service`` (all of it, following the netmap).
"""

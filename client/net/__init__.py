"""What the daemon does to the host's network: marks, addresses, routes, firewall; and watching it."""

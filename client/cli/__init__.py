"""``trenza``: the command line, a module per verb. It reaches the daemon only through :mod:`client.localapi`."""

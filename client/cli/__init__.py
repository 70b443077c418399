"""``trenza``, the command line, a module per verb. It speaks only through :mod:`client.localapi`."""

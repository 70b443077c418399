"""The client beside the official one: ``python -m bench.client`` (root; network namespaces)."""

"""The netmap engine: snapshots of a tailnet in, messages for each connected node out. Pure."""

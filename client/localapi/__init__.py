"""HTTP over a Unix socket between the daemon and its command line."""

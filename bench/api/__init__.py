"""What the admin API costs with 5,000 devices: lists, single calls, and pushes meanwhile."""

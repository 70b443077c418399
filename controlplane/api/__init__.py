"""The public API: DNS, webhooks, logs, tailnets, what only Trenza has, and the description of all of it."""

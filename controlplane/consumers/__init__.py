"""The server's WebSockets beside the control protocol: one module for the panel's pages, one for relays."""

"""Pages of devices, keys, and of machines that ask to come in."""

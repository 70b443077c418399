"""The kernel's own WireGuard under test, in a virtual machine of its own (``make test-kernel``)."""

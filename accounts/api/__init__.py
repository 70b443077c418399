"""What every address of the public API shares: who calls, what they may, how one is refused, how it is described."""

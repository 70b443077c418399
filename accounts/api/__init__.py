"""The public API: what all its addresses share, and those of people and of a tailnet as such."""

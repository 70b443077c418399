"""What can be done to people, tailnets and their credentials. Keyword-only; each owns its transaction."""

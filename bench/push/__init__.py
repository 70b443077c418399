"""How fast a change reaches 1,000 streams, what a stream costs, and how long a storm of reconnects takes."""

"""The relay beside derper, in one run: packets a second, CPU for each packet, latency."""

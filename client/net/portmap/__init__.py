"""Port mapping: asks the router to forward a public UDP port to WireGuard's, by PCP, NAT-PMP or UPnP."""

"""Ways into the tailnet for programs that use no tunnel interface: SOCKS5 and HTTP proxies on loopback."""

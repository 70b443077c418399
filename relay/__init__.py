"""The DERP relay and STUN server: one process, no Django, no secret of a tailnet."""

VERSION = "0.1.0"

"""The PeerAPI: what this node does for its peers over HTTP inside the tunnel, and what it asks of theirs.

Source: tailscale ipn/ipnlocal/peerapi.go, feature/taildrop.
"""

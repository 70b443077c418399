"""What the policy engine costs as a tailnet grows, beside Headscale with the same policies."""

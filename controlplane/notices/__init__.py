"""What a tailnet's people and programs are told of by webhook: occasions, their bodies, how they are sent."""

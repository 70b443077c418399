"""The client's side of the control protocol: carriers, registration, the map stream."""

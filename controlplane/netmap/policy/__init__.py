"""The policy language and its evaluation: who reaches whom, and what each node is told of it. Pure."""

"""The policy language and its evaluation: who reaches whom, with what, and what each node is told of it. Pure."""

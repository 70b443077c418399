"""Network flow logs: who this node talks to, counted by the kernel, told to a server that asks for it."""

"""The way out of a session in network mode `squid`: rules, the proxy that keeps them, and its record.

Its program runs in a container of its own beside the agent's. What is pure here (`rules`, `hosts`, `clienthello`,
`heads`) the host uses, too: what `allowlist explain` says is decided by the code that decides.
"""

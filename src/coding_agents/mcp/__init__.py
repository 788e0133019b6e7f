"""MCP servers on the host: found in a repository, trusted by a person, written as each agent's CLI reads them."""

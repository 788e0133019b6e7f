"""What stands between an agent and MCP servers that hold a secret."""

"""Credentials for git, asked by the guest: its words (request) and those of the host's git (answer). No IO."""

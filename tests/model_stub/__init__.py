"""A scripted model: plays the model's side of the Anthropic Messages API, so that tests drive the real Claude Code."""

"""The part of coding-agents that runs inside the container. Standard library only; holds no policy and no secret."""

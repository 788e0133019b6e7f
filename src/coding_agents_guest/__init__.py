"""What runs inside the container. Standard library only; holds no policy and no secret."""

__version__ = "0.1.0"

"""`coding-agents verify`: what is tried, what it means, and how it is told. Pure: `app.verify` carries it out."""

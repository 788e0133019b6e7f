"""A scripted model: plays the model's side of four APIs, so that tests drive the real agents without an account."""

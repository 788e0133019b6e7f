"""HTTP/1.1 between a guest and one upstream, by h11: read whole, judged elsewhere, streamed back."""

"""Files of record and the sessions kept in them."""

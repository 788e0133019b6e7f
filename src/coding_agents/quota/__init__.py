"""A session's own file system: an ext4 image that bounds what it writes, and the moments in which it is mounted."""

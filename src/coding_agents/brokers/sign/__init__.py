"""Signatures of commits, made on the host by the user's own gpg or ssh-keygen."""

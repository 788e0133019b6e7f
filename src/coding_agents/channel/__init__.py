"""The stream between supervisor and guest: its guest program (pyz) and its carrier (exec_channel)."""

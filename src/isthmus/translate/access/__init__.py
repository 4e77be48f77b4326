"""Access: who may call what, and that nobody else may, where a virtual mesh says so."""

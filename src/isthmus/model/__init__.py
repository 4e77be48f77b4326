"""Identities and findings that every layer shares: plain data, no behaviour of its own."""

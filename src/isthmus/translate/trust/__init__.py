"""Shared trust: which certificate every mesh of a virtual mesh is to have, and what restarts for it.

Certificates themselves are not made here: what signs is an input, `root.RootFacts`, of which translation passes on the
fingerprint. Nothing secret comes near.
"""

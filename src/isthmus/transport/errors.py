"""What can go wrong between an agent and the server, in words that say what to do.

RelayError
├── Unreachable          nobody answers at that address, or the link broke
├── ServerNotTrusted     the server's certificate is not one that the agent trusts
├── IdentityRefused      the server does not accept the agent's certificate, token or cluster name
├── NotRegistered        the server does not know the cluster
├── Replaced             a newer stream of the same cluster took over
├── Incompatible         the two ends speak different versions of the relay, or one broke its rules
└── NoCredentials        the agent has neither a client certificate nor root and token to get one
"""

from __future__ import annotations


class RelayError(Exception):
    """A link between agent and server that does not work, with the reason as its text."""


class Unreachable(RelayError):
    """Nobody answers at the address, or the link broke."""


class ServerNotTrusted(RelayError):
    """The server's certificate is not one that the agent trusts."""


class IdentityRefused(RelayError):
    """The server does not accept the agent's certificate, token or cluster name."""


class NotRegistered(RelayError):
    """The server does not know the cluster."""


class Replaced(RelayError):
    """A newer stream of the same cluster took over."""


class Incompatible(RelayError):
    """The two ends do not speak the same relay."""


class NoCredentials(RelayError):
    """The agent has neither a client certificate nor what it takes to get one."""

"""What host names and addresses look like."""

from __future__ import annotations

import ipaddress
import re

MAX_HOSTNAME, MAX_LABEL = 253, 63  # RFC 1035; the first is also the limit of a Kubernetes object's name
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""What is between two dots, of any length. Source: RFC 1123, Kubernetes' validation."""


def is_label(text: str) -> bool:
    """Whether *text* may stand between two dots, or be the name of a namespace."""
    return len(text) <= MAX_LABEL and LABEL.fullmatch(text) is not None


def is_dotted(name: str) -> bool:
    """Whether *name* is labels with dots between them, of any length."""
    return all(map(LABEL.fullmatch, name.split(".")))


def is_dns_name(name: str) -> bool:
    """Whether *name* is a host name in lower case, or the name of an object that may have dots."""
    return len(name) <= MAX_HOSTNAME and all(map(is_label, name.split(".")))


def is_address(text: str) -> bool:
    """Whether *text* is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

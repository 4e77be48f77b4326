"""How names of objects that we make are derived from names that users gave.

Discovery names Mesh, Workload and Destination objects with it, translation names Istio objects and subsets. Both must
arrive at the same spelling, so the rule has one home.
"""

from __future__ import annotations

import hashlib

MAX_NAME = 63  # longest DNS label and longest label value: RFC 1035, Kubernetes' validation

_KEPT_WHEN_CUT = 31  # of a name that is too long; with "-" and an MD5 in hex this is 64, of which one is cut

_REPLACEMENTS = str.maketrans(dict.fromkeys("*/.:_ ", "-") | dict.fromkeys("[]\"'\n"))


def sanitize(name: str) -> str:
    """*name* as a DNS label of at most 63 characters: what is illegal becomes ``-``, what is too long a hash.

    Two long names keep their difference. Two short ones may become equal (``a.b`` and ``a-b``).
    Source: reference, name sanitising; existing installations have objects under these names.
    """
    plain = name.translate(_REPLACEMENTS)
    encoded = plain.encode()
    if len(encoded) > MAX_NAME:
        digest = hashlib.md5(encoded, usedforsecurity=False).hexdigest()
        plain = f"{encoded[:_KEPT_WHEN_CUT].decode(errors='ignore')}-{digest}"[:MAX_NAME]
    return plain.lower()

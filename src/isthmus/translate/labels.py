"""Labels and namespaces that users write into policies, where Istio must be told of them.

Kubernetes gives none like these to any object, so nothing has them; and Istio refuses the whole object that names one,
with all that others say in it.
Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from isthmus.model.hosts import MAX_HOSTNAME, is_dotted, is_label
from isthmus.model.names import MAX_NAME
from isthmus.model.problem import Problem

_NAME = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?")


def label_problems(labels: Mapping[str, str], path: str) -> Iterator[Problem]:
    """What is wrong with *labels*, which are at field path *path*."""
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        named = len(name) <= MAX_NAME and _NAME.fullmatch(name)
        if not named or (slash and not (len(prefix) <= MAX_HOSTNAME and is_dotted(prefix))):
            yield Problem(path, "InvalidLabel", f"{key!r} is no key of a label, such as version or example.com/tier")
        elif value and not (len(value) <= MAX_NAME and _NAME.fullmatch(value)):
            message = f"{key} can't be {value!r}: values have letters, digits, -, _ and ., at most {MAX_NAME}"
            yield Problem(path, "InvalidLabel", message)


def namespace_problems(namespaces: Iterable[str], path: str) -> Iterator[Problem]:
    """What is wrong with *namespaces*, which are at field path *path*."""
    for i, namespace in enumerate(namespaces):
        if not is_label(namespace):
            message = f"{namespace!r} is no name of a namespace; leave namespaces out for all"
            yield Problem(f"{path}[{i}]", "InvalidName", message)

"""How AuthorizationPolicies match text: exact, prefix, suffix and presence; paths also by templates.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

_SEGMENT = r"[a-zA-Z0-9\-._~%!$&'()+,;:@]"  # what Envoy's templates take for one character of a segment


def matches(pattern: str, value: str) -> bool:
    """Whether *value* is *pattern*: ``exact``, ``prefix*``, ``*suffix``, or ``*``, which asks for something at all."""
    if pattern == "*":
        return bool(value)
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value == pattern


@lru_cache(maxsize=4096)
def template(pattern: str) -> re.Pattern[str] | None:
    """The paths of a template, None if *pattern* is none: ``{*}`` is one segment, ``{**}`` any number of them.

    Source: https://github.com/envoyproxy/envoy/blob/main/source/extensions/path/uri_template_lib. There
    ``/foo/{**}/`` does not match ``/foo/bar/baz.txt``, which Istio's reference says it does.
    """
    if "{*}" not in pattern and "{**}" not in pattern:
        return None
    one, many = _SEGMENT + "+", _SEGMENT.replace("]", "/]") + "*"
    parts = (
        one if part == "{*}" else many if part == "{**}" else re.escape(part)
        for part in re.split(r"(\{\*\*?\})", pattern)
    )
    return re.compile("".join(parts))


def ends_of(pattern: str) -> tuple[str, str]:
    """The text before the first and after the last operator of a template."""
    return pattern[: pattern.index("{")], pattern[pattern.rindex("}") + 1 :]


def any_of(answers: Iterable[bool | None]) -> bool | None:
    """Whether one of *answers* is True; None where that is open."""
    found: bool | None = False
    for answer in answers:
        if answer is True:
            return True
        if answer is None:
            found = None
    return found


def representatives(patterns: Iterable[str], anything: str, least: str = "") -> Iterator[str]:
    """Texts that between them fall under every combination of *patterns* that some text falls under.

    Which prefixes a text has depends on the longest of them alone, and so for suffixes; an exact pattern is a text of
    its own. So it takes the exact ones, and each prefix with each suffix around *anything*, which is in no pattern.
    Texts begin with *least*. Of templates only the ends count; what is between is left to
    `evaluation.open_questions`.
    """
    exact, prefixes, suffixes = dict[str, None](), {least: None}, {"": None}
    for pattern in patterns:
        if pattern == "*":
            continue
        if template(pattern) is not None:
            head, tail = ends_of(pattern)
            prefixes[head], suffixes[tail] = None, None
        elif pattern.startswith("*"):
            suffixes[pattern[1:]] = None
        elif pattern.endswith("*"):
            prefixes[pattern[:-1]] = None
        else:
            exact[pattern] = None
    yield from (text for text in exact if text.startswith(least))
    for prefix in prefixes:
        if prefix.startswith(least):
            yield from (f"{prefix}{anything}{suffix}" for suffix in suffixes)

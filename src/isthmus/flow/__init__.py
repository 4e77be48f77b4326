"""Derived collections: keyed sets of immutable values that stay equal to functions of other collections.

A `Graph` holds sources, which the outside sets, and derivations, which follow. A derivation is a plain function of one
row of its source collection that may look up rows of earlier collections; the graph remembers what every result read,
and `Graph.run` evaluates again exactly those whose reads changed. An equal result stops the wave.

The one rule: a function given to a graph depends on nothing but its arguments and what it fetches.

Models: Istio's krt, Salsa, Bazel's Skyframe. The package knows nothing of meshes.
"""

from isthmus.flow.graph import Collection, Fetch, Graph, Index, Source, Tap, first_part

__all__ = ["Collection", "Fetch", "Graph", "Index", "Source", "Tap", "first_part"]

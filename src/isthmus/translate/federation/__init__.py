"""Making destinations reachable from the other meshes of their virtual mesh.

`derivations` wires the steps; everything else here is plain functions, one module per fact: which gateways, which
addresses, which objects.
"""

"""The lab: real Kubernetes API servers, istiod and Envoy on one Linux machine, without containers.

Everything runs in one *box*: a PID, mount and network namespace of its own, with no way out. When the box's first
process ends, however it ends, the kernel ends all the others and takes down their mounts, networks and packet filter
rules.
"""

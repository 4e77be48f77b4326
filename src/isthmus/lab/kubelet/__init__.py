"""Runs Pods as processes: what a kubelet, a scheduler and a cloud do for a cluster of the lab.

`Kubelet` is the door. Modules without I/O decide (`containers`, `environment`, `fields`, `volumes`, `probes`,
`status`, `network_files`); the keepers `pod` and `container` do.
"""

from isthmus.lab.kubelet.kubelet import Kubelet

__all__ = ["Kubelet"]

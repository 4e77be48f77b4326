"""Isthmus: the management plane that joins Istio meshes on many clusters into one virtual mesh."""

__version__ = "0.1.0"

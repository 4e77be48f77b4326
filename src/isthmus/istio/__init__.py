"""What we write: Istio's kinds, the fields of them that we use, and their canonical encoding."""

"""External services: Destinations that users write for hosts outside any mesh, known by name on every mesh."""

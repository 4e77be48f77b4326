"""What users write and what they see: one frozen type per custom resource, one module per kind.

Attributes are the YAML fields in snake_case; class names are the reference's message names. A oneof is a set of
optional attributes of which at most one is set (see `base.oneof`). Objects are values: never changed, compared by
content.
"""

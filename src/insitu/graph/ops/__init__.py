"""Operators, one file per family: shape rules and integer semantics."""

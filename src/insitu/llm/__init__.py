"""Language models: real tokens from compiled programs, and shapes without weights."""

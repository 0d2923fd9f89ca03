"""Decisions: the claims ledger, deployment plans, hybrid systems, a ladder of sizes."""

"""What every layer stands on; it knows nothing of compute-in-memory."""

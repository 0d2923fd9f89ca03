"""Use a Program: sessions that feed tensors, keep state and collect outputs."""

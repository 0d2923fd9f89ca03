"""Array products on torch tensors, fused by Triton where it runs; extra `gpu`.  Imported only when it is asked for."""

"""The event loop of the timing simulator: plans and cores as structured arrays, and the kernels that run them."""

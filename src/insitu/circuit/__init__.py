"""One macro: array, drivers and readout; its physics as functions of arrays, its costs as functions of its geometry."""

"""Vector code for the registers of a processor, which the kernels of several operations share."""

"""ggml's RPC backend: lending a device, and using the devices that others lend."""

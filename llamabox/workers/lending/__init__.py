"""The process that lends a device to one RPC client."""

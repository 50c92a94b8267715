"""What runs in a process that lends a device to one client."""

"""Signs of life: the worker's pulse, the server's vigil over it, and the clock of both."""

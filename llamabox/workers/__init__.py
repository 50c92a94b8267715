"""The process boundary: native code runs in worker processes, HTTP in the server process."""

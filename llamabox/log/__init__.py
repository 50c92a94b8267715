"""The output of a process: its log, and its lines for people."""

"""What a process says: its log, and what it prints for people."""

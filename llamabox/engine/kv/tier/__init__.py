"""What of slots goes to host memory and comes back, between steps, while streams wait."""

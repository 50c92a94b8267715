"""Chat templates are rendered here, in a process of their own, since they come with model files."""

"""What is put on top of a model's weights, and the forms in which weights lie in memory."""

"""llama.cpp's own completion routes."""

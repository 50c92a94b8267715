"""Drafts that need files or libllama: lookup caches, and a second, small model beside the engine's."""

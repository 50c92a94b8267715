"""OpenAI's Responses: a conversation as items in, items out."""

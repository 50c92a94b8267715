"""Conversations in the words of Anthropic's Messages API, brought into the form of chat/messages.py. Pure."""

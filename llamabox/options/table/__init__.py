"""Every option, one file a group. llamabox.options puts them together."""

"""Where the bytes of media come from when the request does not carry them: other machines, and a folder."""

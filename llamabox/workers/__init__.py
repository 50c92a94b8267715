"""Worker processes: each holds one native library and serves one socket. Nobody else imports this."""

"""Pictures and sounds on their way into the model: chunks, the thread that encodes them, and rows that are kept."""

"""The only package that knows C: libllama and its friends behind typed handles."""

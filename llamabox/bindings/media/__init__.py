"""Pictures and sounds as rows of a text model's input: libmtmd's projectors."""

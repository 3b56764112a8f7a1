"""Configure every command: the dataclasses that Gin binds, and the only code that reads Gin."""

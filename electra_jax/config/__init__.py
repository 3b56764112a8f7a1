"""Dataclasses that Gin binds, and the only code that reads Gin."""

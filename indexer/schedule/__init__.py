"""Scheduled verification: what is sealed, read again for ever, a part a day."""

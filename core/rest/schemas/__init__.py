"""Schemas of requests and responses, by resource. Responses never contain credentials."""

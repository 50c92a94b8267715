"""The APIs, one folder each: fields in, route, reply out."""

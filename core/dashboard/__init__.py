"""The dashboard: HTML pages for people, rendered here and served beside the REST API.

Everything that pages show comes from outside and is hostile: templates escape all of it, and the
Content-Security-Policy runs no script but our one file. Pages ask `core.service` as the API does,
as whoever is signed in.
"""

"""The dashboard: HTML pages for people, rendered here and served beside the REST API.

Pages show untrusted data. Templates escape all values, and the Content-Security-Policy allows only
the one script of the dashboard. Pages call `core.service`, as the API does, with the rights of the
signed-in user.
"""

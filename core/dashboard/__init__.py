"""The dashboard: HTML pages for people, rendered here and served beside the REST API.

All data that pages show is untrusted: templates escape it, and the Content-Security-Policy allows
no script but the file of the dashboard. Pages call `core.service`, as the API does, with the rights
of the viewer.
"""

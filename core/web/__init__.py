"""What REST and the dashboard share. It needs the extra `serve`.

dependencies  the backend, the principal, parameters   problems        errors as RFC 9457
body_limit    the maximum size of a request            downloads       stored content as bytes
feed_watcher  waiting for changes                      provider_slots  waiting for providers
server        uvicorn                                  tracing         a span for each request
"""

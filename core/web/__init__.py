"""The code that REST and the dashboard share. It needs the extra `serve`.

- `dependencies`: the backend, the principal and common parameters
- `body_limit`: the maximum size of a request body
- `problems`: errors as problem details (RFC 9457)
- `downloads`: the bytes of content
- `connections`: deadlines of connections, and who gives way at the limit
- `feed_watcher`: waiting for changes
- `gate`: the hosts that are served, and the bounds of each client
- `provider_slots`: limits on requests that wait for providers, and on requests for runs
- `server`: uvicorn
- `tracing`: a span for each request
- `user_slots`: the number of requests of each user that are handled at one time
"""

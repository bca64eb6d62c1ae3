"""The analysts' page: a read-only JSON API on both stores, server-sent events, and the page itself."""

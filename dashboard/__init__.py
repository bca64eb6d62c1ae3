"""The analysts' page: a read-only JSON API on the stores, server-sent events, and the page that shows them."""

// How does the page talk to its server? Typed answers by GET, events by one stream that mends itself.

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { headers: { accept: "application/json" }, ...options });
  } catch {
    throw new Refused(0, "The page's server does not answer.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const detail = typeof body.detail === "string" ? body.detail : `The server answered ${response.status}.`;
  throw new Refused(response.status, detail);
}

export const session = () => ask("/api/session");
export const signIn = (token) =>
  ask("/api/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token }),
  });
export const signOut = () => ask("/api/session", { method: "DELETE" });
export const watchlist = () => ask("/api/watchlist");
export const health = () => ask("/api/health");
export const alerts = (symbol, limit) => ask(`/api/alerts?${query({ symbol, limit })}`);
export const bars = (symbol, interval, { before, limit } = {}) =>
  ask(`/api/bars/${encodeURIComponent(symbol)}?${query({ interval, before, limit })}`);

function query(values) {
  return new URLSearchParams(Object.entries(values).filter(([, value]) => value != null));
}

/** Listens to the server. `handlers` has one function per event, and `up` and `down` for the stream itself. */
export function listen(handlers) {
  const stream = new EventSource("/api/events");
  for (const name of ["bars", "alert", "clock", "trouble"])
    stream.addEventListener(name, (event) => handlers[name](JSON.parse(event.data)));
  stream.addEventListener("open", () => handlers.up());
  stream.addEventListener("error", () => {
    handlers.down();
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => listen(handlers), 3000);
  });
}

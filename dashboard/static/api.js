// Requests to the page's server: JSON by GET, and one event stream that reconnects by itself.

export class ApiError extends Error {
  /** `status` is the HTTP status, or 0 where the server does not answer. */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { headers: { accept: "application/json" }, ...options });
  } catch {
    throw new ApiError(0, "The page's server does not answer.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const detail = typeof body.detail === "string" ? body.detail : `The server answered ${response.status}.`;
  throw new ApiError(response.status, detail);
}

export const session = () => request("/api/session");
export const signIn = (token) =>
  request("/api/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token }),
  });
export const signOut = () => request("/api/session", { method: "DELETE" });
export const watchlist = () => request("/api/watchlist");
export const health = () => request("/api/health");
export const alerts = (symbol, limit) => request(`/api/alerts?${query({ symbol, limit })}`);
export const backtests = () => request("/api/backtests");
export const bars = (symbol, interval, adjust, { before, limit } = {}) =>
  request(`/api/bars/${encodeURIComponent(symbol)}?${query({ interval, adjust, before, limit })}`);

/** The address of everything about the 5-minute bar that opens at a time, in seconds since 1970. */
export const whyAddress = (symbol, time) =>
  `/api/why?${query({ symbol, time: new Date(time * 1000).toISOString().replace(":00.000Z", "Z") })}`;
export const why = (symbol, time) => request(whyAddress(symbol, time));

function query(values) {
  return new URLSearchParams(Object.entries(values).filter(([, value]) => value != null));
}

/** Follow the server's events. `handlers` has one function per event, and `up` and `down` for the stream itself.
 *  Where the server ends it for good, `closed` says whether to follow it again. */
export function listen(handlers) {
  const stream = new EventSource("/api/events");
  for (const name of ["bars", "alert", "clock", "outage"])
    stream.addEventListener(name, (event) => handlers[name](JSON.parse(event.data)));
  stream.addEventListener("open", () => handlers.up());
  stream.addEventListener("error", () => {
    handlers.down();
    if (stream.readyState !== EventSource.CLOSED) return;
    setTimeout(async () => {
      if (await handlers.closed()) listen(handlers);
    }, 3000);
  });
}

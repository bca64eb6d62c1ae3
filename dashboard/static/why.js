// The side panel about one 5-minute bar: its timeline, its values in every store, and what is missing.

import * as api from "./api.js";
import { byId, capitalized, element, shape } from "./dom.js";
import * as format from "./format.js";

const BAR_SECONDS = 300;
const PRICES = ["open", "high", "low", "close"];
const TABLES = { bar_30min: "30 min", bar_1h: "1 h", bar_1d: "1 day" };
const STORES = { staging: "MongoDB", lake: "Lake", warehouse: "Warehouse" };

export class WhyPanel {
  /** `guarded` returns the answer to a request, or null where it failed and the page shows the reason. */
  constructor(guarded) {
    this.guarded = guarded;
    this.panel = byId("why");
    this.body = byId("why-body");
    this.reads = 0;
    byId("why-close").onclick = () => this.close();
    byId("why-before").onclick = () => this.open(this.symbol, this.time - BAR_SECONDS);
    byId("why-after").onclick = () => this.open(this.symbol, this.time + BAR_SECONDS);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.target.closest("input")) this.close();
    });
  }

  /** Show the 5-minute bar that opens at a time, in seconds since 1970: of a longer candle, its first one. */
  async open(symbol, time) {
    Object.assign(this, { symbol, time, story: null, problem: "" });
    const read = ++this.reads;
    if (this.panel.hidden) this.opener = document.activeElement;
    this.panel.hidden = false;
    byId("why-json").href = api.whyAddress(symbol, time);
    this.draw();
    if (!this.panel.contains(document.activeElement)) byId("why-close").focus();
    const story = await this.guarded(() => this.read(symbol, time));
    if (read !== this.reads || this.panel.hidden) return;
    if (story) Object.assign(this, story);
    else this.problem = "The bar could not be read.";
    this.draw();
  }

  /** Return everything about a bar, or the reason why there is none. */
  async read(symbol, time) {
    try {
      return { story: await api.why(symbol, time) };
    } catch (error) {
      if (![400, 404].includes(error.status)) throw error;
      return { problem: error.message };
    }
  }

  /** Hide the panel. The focus returns to where it was. */
  close() {
    if (this.panel.hidden) return;
    const inside = this.panel.contains(document.activeElement);
    this.panel.hidden = true;
    this.reads += 1;
    if (!inside) return;
    const opener = this.opener?.isConnected && this.opener !== document.body ? this.opener : byId("chart-panel");
    opener.focus();
  }

  draw() {
    if (this.panel.hidden) return;
    byId("why-title").textContent = `${this.symbol}, bar of ${format.longTime(this.time)}`;
    const { story, problem } = this;
    this.panel.dataset.shown = story ? `${story.symbol} ${story.bar_start}` : "";
    if (story) this.body.replaceChildren(...parts(story));
    else this.body.replaceChildren(element("p", "note", problem || "Reading …"));
    this.body.scrollTop = 0;
  }
}

function parts(story) {
  const differ = element("p", "differ", shape("warn"), "The stores hold different values.");
  return [
    story.stored.agree ? null : differ,
    section(`Timeline${story.symbol === story.present_symbol ? "" : ` of ${story.symbol}, ${story.present_symbol} today`}`, timeline(story)),
    story.missing.length ? section("Missing", list("missing", story.missing.map(gap))) : null,
    section("In the stores", stores(story)),
    Object.keys(story.aggregates).length ? section("In longer bars", aggregates(story)) : null,
    story.alerts.length ? section("Alerts", list("deliveries", story.alerts.flatMap(deliveries))) : null,
    story.actions.length ? section("Adjusted for", list("", story.actions.map(action))) : null,
  ].filter(Boolean);
}

/** A line of what is missing, with the commands in it as code. */
const gap = (text) =>
  element("li", "", ...text.split("`").map((part, at) => (at % 2 ? element("code", "", part) : part)));
const section = (title, ...content) => element("section", "", element("h3", "", title), ...content);
const list = (className, items) => element("ul", className, ...items);

/** What happened, in time order: each with its moment in the page's zone and in UTC. */
function timeline(story) {
  const events = [...happened(story)].sort((one, other) => Date.parse(one.at) - Date.parse(other.at));
  return element(
    "ol", "story",
    ...events.map(({ at, text, more = [], kind = "" }) => {
      const time = element("time", "", format.exactTime(at));
      time.dateTime = at;
      time.title = format.utcTime(at);
      return element("li", kind, time, element("div", "", text, ...more.filter(Boolean)));
    }),
  );
}

function* happened(story) {
  const closes = new Date(Date.parse(story.bar_start) + BAR_SECONDS * 1000).toISOString();
  yield { at: story.bar_start, text: "The bar opens." };
  yield { at: closes, text: "The bar closes." };
  for (const row of story.validation.rejected) {
    const times = row.times > 1 ? `, ${row.times} times` : "";
    const more = [element("small", "", `run ${row.run_id}`), code(row.payload)];
    yield { at: row.seen_at, kind: "rejected", text: `Rejected: ${row.reasons.join(", ")}${times}.`, more };
  }
  const answers = new Map(story.answers.map((answer) => [answer.revision, answer]));
  for (const version of story.versions) {
    const answer = answers.get(version.revision);
    const brought = element("b", "", `Version ${version.revision}`);
    const more = [element("span", "values", values(version)), ...(answer ? asked(answer) : [])];
    yield { at: version.known_from, kind: "version", text: brought, more };
    if (version.published_at) yield run(version.published_at, `Version ${version.revision} published`, version.manifest);
    if (version.loaded_at) yield run(version.loaded_at, `Version ${version.revision} loaded`, version.load_id);
  }
  const named = story.versions.flatMap((version) => [version.manifest, version.load_id]);
  if (story.published_at && !named.includes(story.manifest)) yield run(story.published_at, "Session published again", story.manifest);
  if (story.loaded_at && !named.includes(story.load_id)) yield run(story.loaded_at, "Row loaded again", story.load_id);
  for (const alert of story.alerts) yield { at: alert.created_at, kind: "fired", text: alert.text, more: [element("small", "", `alert ${alert.rule}`)] };
}

const run = (at, what, id) => ({ at, text: `${what}.`, more: [element("small", "", id)] });
const code = (row) => element("code", "row-text", typeof row === "string" ? row : JSON.stringify(row));
const values = (bar) => [...PRICES.map((name) => `${name[0].toUpperCase()} ${exact(bar[name])}`), `V ${format.count(bar.volume)}`].join("  ");
const exact = (value) => (value == null ? "–" : String(Number(value.toPrecision(9))));

function asked(answer) {
  const request = `HTTP ${answer.http_status}, ${format.amount(answer.symbols.length, "symbol")}, ${format.amount(answer.credits, "credit")}`;
  const replay = answer.replayed ? `, replayed from the rejected row ${answer.replayed.slice(0, 8)}` : "";
  return [element("small", "", `answer of ${answer.run_id}: ${request}${replay}`), ...answer.rows.map(code)];
}

function stores(story) {
  const rows = Object.entries(STORES).map(([key, name]) => [name, story.stored[key]]);
  const facts = [["File", story.file], ["Manifest", story.manifest], ["Load", story.load_id]];
  return element("div", "", table("Store", rows), pairs(facts));
}

function aggregates(story) {
  const rows = Object.entries(TABLES).map(([key, name]) => [name, story.aggregates[key]]);
  const metrics = Object.entries(story.daily_metrics ?? {}).filter(([name, value]) => typeof value === "number" && name !== "close");
  return element("div", "", table("Bar", rows), metrics.length ? pairs(metrics.map(([name, value]) => [name, exact(Number(value.toPrecision(6)))])) : "");
}

/** A table of bars: one row per name, with a dash where there is none. */
function table(title, rows) {
  const head = element("tr", "", ...[title, "Open", "High", "Low", "Close", "Volume"].map((name) => heading(name, "col")));
  const lines = rows.map(([name, bar]) =>
    element(
      "tr", "", heading(name, "row"), ...PRICES.map((price) => element("td", "", exact(bar?.[price]))),
      element("td", "", format.count(bar?.volume)),
    ),
  );
  return element("div", "scroll", element("table", "", element("thead", "", head), element("tbody", "", ...lines)));
}

function heading(text, scope) {
  const made = element("th", "", text);
  made.scope = scope;
  return made;
}

const pairs = (found) =>
  element("dl", "", ...found.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value ?? "–")]));

function deliveries(alert) {
  return Object.entries(alert.channels).map(([name, state]) => {
    const sent = state.delivered_at != null;
    const tries = format.amount(state.attempts, "attempt");
    const next = state.next_at ? `, next ${format.dayTime(state.next_at)}` : "";
    let text = `waits, ${tries}${next}`;
    if (sent) text = `delivered ${format.exactTime(state.delivered_at)}`;
    else if (state.dropped_at) text = `dropped ${format.exactTime(state.dropped_at)}`;
    else if (state.muted_at) text = `muted ${format.exactTime(state.muted_at)}`;
    const error = state.last_error ? element("small", "", state.last_error) : null;
    return element("li", "", element("span", sent ? "ok" : "warn", shape(sent ? "ok" : "warn")), `${alert.rule} · ${name}: ${text}`, error);
  });
}

const action = ({ label, ex_date: day, source, known_from: known }) =>
  element("li", "", `${capitalized(label)}, ex-date ${format.sessionDate(day)}`, element("small", "", `${source}, known from ${format.exactTime(known)}`));

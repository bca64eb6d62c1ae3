// The panels beside the chart: the newest alerts, and how far each hop of the pipeline is.

import { byId, element, shape } from "./dom.js";
import * as format from "./format.js";

const MAX_ALERTS = 200;
const SEVERITY = { info: "i", warning: "!", critical: "!!" };

export class AlertList {
  /** `onChoice` is called with the symbol of the alert that the reader chose. */
  constructor(onChoice) {
    this.alerts = [];
    this.unreadable = 0;
    this.list = byId("alerts");
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) onChoice(button.dataset.symbol);
    });
  }

  /** Replace the list by what was read, and keep alerts that arrived meanwhile. The server skipped the unreadable. */
  replace(alerts, unreadable) {
    this.unreadable = unreadable;
    const created = ({ message }) => Date.parse(message.created_at);
    const found = new Map([...this.alerts, ...alerts].map((alert) => [alert.message.id, alert]));
    this.alerts = [...found.values()].sort((a, b) => created(b) - created(a)).slice(0, MAX_ALERTS);
    this.draw();
  }

  /** Put a new alert on top. */
  add(alert) {
    if (this.alerts.some((known) => known.message.id === alert.message.id)) return;
    this.alerts = [alert, ...this.alerts].slice(0, MAX_ALERTS);
    byId("alerts-count").textContent = this.note();
    this.list.querySelector(".none")?.remove();
    const line = this.line(alert);
    line.classList.add("new");
    this.list.prepend(line);
    while (this.list.children.length > MAX_ALERTS) this.list.lastChild.remove();
  }

  draw() {
    byId("alerts-count").textContent = this.note();
    const reason = this.unreadable
      ? "This version of the page cannot read the stored alerts. Deploy the version that wrote them."
      : "No alert has fired yet. To list the rules, run barflow alerts rules";
    const none = element("li", "none", reason);
    this.list.replaceChildren(...(this.alerts.length ? this.alerts.map((alert) => this.line(alert)) : [none]));
  }

  note() {
    const newest = this.alerts.length ? `newest ${this.alerts.length}` : "";
    return [newest, this.unreadable ? `${this.unreadable} unreadable` : ""].filter(Boolean).join(", ");
  }

  line({ message }) {
    const severity = element("span", `severity ${message.severity}`, SEVERITY[message.severity]);
    severity.title = message.severity;
    severity.setAttribute("aria-label", message.severity);
    const symbol = element("button", "name", message.symbol);
    symbol.type = "button";
    symbol.dataset.symbol = message.symbol;
    symbol.title = `Show ${message.symbol}`;
    const time = element("time", "", format.dayTime(message.bar_start));
    time.dateTime = message.bar_start;
    const text = message.text.startsWith(`${message.symbol} `) ? message.text.slice(message.symbol.length + 1) : message.text;
    return element(
      "li", "", severity, element("span", "about", symbol, element("span", "rule", message.rule), time),
      element("span", "text", element("span", message.direction ?? "", message.direction && shape(message.direction)), text),
    );
  }
}

export function drawHealth(health) {
  const now = Date.now();
  const table = element("table", "");
  table.append(element("caption", "unseen", "How far each hop of the pipeline is"));
  const head = element("tr", "");
  for (const name of ["Hop", "Data until", "Last run"]) {
    const cell = element("th", "", name);
    cell.scope = "col";
    head.append(cell);
  }
  table.append(element("thead", "", head));
  const body = element("tbody", "");
  for (const hop of health.hops) {
    const name = element("th", "", hop.name, element("small", "", hop.holds));
    name.scope = "row";
    body.append(element("tr", "", name, element("td", "", until(hop)), element("td", "", run(hop.run, now))));
  }
  table.append(body);
  byId("health").replaceChildren(table, facts(health));
  drawMutes(health.mutes);
  byId("health-note").textContent = format.amount(health.symbols, "symbol");
}

/** Show above the alerts which of them are not sent now. */
function drawMutes(mutes) {
  const list = byId("mutes");
  list.hidden = !mutes.length;
  list.replaceChildren(...mutes.map(({ covers, until, by, reason }) =>
    element("li", "", element("b", "", `Muted: ${covers}`), ` until ${format.dayTime(until)}`, element("small", "", reason ? `${by}: ${reason}` : by)),
  ));
}

function until(hop) {
  if (hop.data_until) return format.dayTime(hop.data_until);
  return hop.newest_session ? `session ${format.sessionDay(hop.newest_session)}` : "–";
}

const OUTCOMES = { succeeded: "ok", loaded: "ok", partial: "warn", running: "warn", failed: "bad" };

function run(found, now) {
  if (!found) return element("span", "note", "no run yet");
  const kind = OUTCOMES[found.outcome] ?? "warn";
  const when = format.age((now - Date.parse(found.finished_at ?? found.started_at)) / 60000);
  const shown = element("span", kind, shape(kind), found.outcome);
  if (found.error) shown.title = found.error;
  return element("span", "", shown, element("small", "", `${when} ago`));
}

function facts(health) {
  const list = element("ul", "facts");
  const line = (kind, text, more) => {
    const item = element("li", kind, kind === "ok" ? shape("ok") : null, text);
    if (more?.length) {
      const details = element("details", "", element("summary", "", text), element("ul", ""));
      details.lastChild.append(...more.map((each) => element("li", "", each)));
      item.replaceChildren(details);
    }
    list.append(item);
  };
  const { gaps, gaps_total: missing, rejected, stale, differing, unreadable } = health;
  const rejectedBars = rejected.reduce((sum, { count }) => sum + count, 0);
  const listed = gaps.reduce((sum, gap) => sum + gap.missing, 0);
  const sessions = `${missing > listed ? "over " : ""}${format.amount(gaps.length, "session")}`;
  if (missing) line("warn", `${format.amount(missing, "bar")} missing in ${sessions}`, gaps.map(
    (gap) => `${gap.symbol}  ${format.sessionDay(gap.session_date)}: ${gap.missing} of ${format.amount(gap.expected, "bar")}`,
  ));
  else line("ok", "No missing bar in the last 20 sessions");
  if (rejectedBars) line("warn", `${format.amount(rejectedBars, "rejected bar")} in quarantine`, rejected.map(({ symbol, count }) => `${symbol}: ${count}`));
  else line("ok", "No rejected bar in quarantine");
  if (stale.length) line("warn", `${format.amount(stale.length, "stale symbol")}`, stale);
  else line("ok", "No stale symbol");
  if (differing.length) line("warn", `${format.amount(differing.length, "difference")} from Twelve Data's daily bars`, differing);
  else line("ok", "No session differs from Twelve Data's daily bar");
  const skipped = unreadable.reduce((sum, { count }) => sum + count, 0);
  if (skipped) line("warn", `${format.amount(skipped, "document")} that this version cannot read`, unreadable.map(({ collection, count }) => `${collection}: ${count}`));
  return list;
}

// The tab of the last backtests: the figures of each rule, and the command that made them.

import { byId, element } from "./dom.js";
import * as format from "./format.js";

// Each column, and what is below its figure.
const COLUMNS = [["Rule"], ["Alerts", "a month"], ["1 h return", "baseline"], ["Hit rate", "baseline"]];

let drawn = "";

/** Draw the backtests, newest first. What the reader has opened stays open where nothing changed. */
export function drawBacktests({ backtests, unreadable }) {
  const text = JSON.stringify([backtests, unreadable, format.zoneName()]);
  if (text === drawn) return;
  drawn = text;
  const parts = backtests.map(backtest);
  if (parts.length) parts[0].open = true;
  else parts.push(element("p", "none", "No backtest yet. Run one on the archive: ", element("code", "", "barflow alerts backtest")));
  if (unreadable) parts.push(element("p", "none warn", `${format.amount(unreadable, "backtest")} that this version cannot read`));
  byId("backtests").replaceChildren(...parts);
}

function backtest(found) {
  const period = `${format.sessionDate(found.first)} to ${format.sessionDate(found.last)}`;
  const size = `${format.amount(found.symbols, "symbol")}, ${format.amount(found.sessions, "session")}`;
  const made = element("small", "", `${size}; run ${format.dayTime(found.created_at)}${found.as_known ? "; as known" : ""}`);
  made.title = found.symbol_names.join(", ") + (found.symbols > found.symbol_names.length ? ", …" : "");
  const notes = element("ul", "note", ...found.notes.map((text) => element("li", "", text)));
  return element(
    "details", "", element("summary", "", period, made), table(found.rules),
    element("code", "command", found.command), found.notes.length ? notes : null,
  );
}

function table(rules) {
  const head = element("tr", "", ...COLUMNS.map(([name, below]) => scoped("col", name, below && element("small", "", below))));
  return element("table", "", element("thead", "", head), element("tbody", "", ...rules.map(row)));
}

function row(item) {
  const { mean, baseline, hit_rate: hits, hit_interval: interval, baseline_hit_rate: usual } = item.returns["1h"];
  const name = scoped("row", item.rule);
  name.title = item.condition;
  const counts = element("td", "", format.count(item.alerts), element("small", "", format.tenths(item.a_month)));
  counts.title = `${format.count(item.cooled_down)} in cool-down; longest silence ${format.amount(item.longest_silence, "session")}`;
  const after = element("td", format.direction(mean && mean * 100), format.signed(mean && mean * 100, " %"));
  after.append(element("small", "", format.signed(baseline && baseline * 100, " %")));
  const rate = element("td", "", format.percent(hits), element("small", "", format.percent(usual)));
  if (interval) rate.title = `95 %: ${interval.map(format.percent).join(" to ")}`;
  return element("tr", "", name, counts, after, rate);
}

function scoped(scope, ...children) {
  const made = element("th", "", ...children);
  made.scope = scope;
  return made;
}

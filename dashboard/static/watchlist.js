// The watch list: one row per symbol, chosen with the pointer or the arrow keys, updated in place.

import { byId, choices, element, shape, sparkline } from "./dom.js";
import * as format from "./format.js";

export class Watchlist {
  /** `onChoice` receives the symbol that the reader chose. */
  constructor(onChoice) {
    this.rows = new Map();
    this.lines = new Map();
    this.events = 0;
    this.updated = new Map(); // by symbol, the number of the newest event with its row
    this.onChoice = onChoice;
    this.list = byId("rows");
    this.filter = byId("filter");
    this.lists = {};
    this.select = byId("list");
    this.select.addEventListener("change", () => {
      choices.set("list", this.select.value);
      this.applyFilter();
    });
    this.list.addEventListener("click", (event) => {
      const line = event.target.closest("[role=option]");
      if (line) this.choose(line.dataset.symbol);
    });
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    this.filter.addEventListener("input", () => this.applyFilter());
    this.filter.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.filter.value = "";
      if (["Enter", "ArrowDown", "Escape"].includes(event.key)) {
        event.preventDefault();
        this.applyFilter();
        this.list.focus();
        const [first] = this.visible();
        if (event.key !== "Escape" && first) this.choose(first);
      }
    });
  }

  /** Show the rows of an event. */
  update(rows) {
    this.events += 1;
    for (const { symbol } of rows) this.updated.set(symbol, this.events);
    this.draw(rows);
  }

  /** Show all rows. They were requested after `events` events: a row of a later event is newer, and stays. */
  replace(rows, events) {
    this.draw(rows.filter(({ symbol }) => !(this.updated.get(symbol) > events)));
  }

  draw(rows) {
    for (const row of rows) {
      const old = this.rows.get(row.symbol);
      this.rows.set(row.symbol, row);
      const line = this.line(row, old);
      const shown = this.lines.get(row.symbol);
      if (shown) shown.replaceWith(line);
      else this.insert(row.symbol, line);
      this.lines.set(row.symbol, line);
    }
    if (this.symbol) this.markChoice();
    this.applyFilter();
  }

  insert(symbol, line) {
    const next = [...this.lines.keys()].filter((known) => known > symbol).sort()[0];
    this.list.insertBefore(line, next ? this.lines.get(next) : null);
  }

  /** Update the age of every row to a moment of the market's clock. */
  tick(now) {
    for (const row of this.rows.values()) {
      if (!row.newest_bar) continue;
      row.age_minutes = (Date.parse(now) - Date.parse(row.newest_bar)) / 60000 - 5;
      const age = this.lines.get(row.symbol).querySelector(".age");
      if (row.freshness !== "closed") age.replaceChildren(...freshness(row));
    }
  }

  line(row, old) {
    const way = format.direction(row.change);
    const line = element("div", "row");
    line.id = `row-${row.symbol.replace(/[^A-Za-z0-9]/g, "-")}`;
    line.setAttribute("role", "option");
    line.dataset.symbol = row.symbol;
    if (old && old.last !== row.last) line.classList.add(row.last > old.last ? "rose" : "fell");
    const trend = element("span", `trend ${row.trend ?? "none"}`);
    trend.append(...(row.trend ? [shape(row.trend), row.trend] : ["no trend"]));
    trend.title = trendTitle(row);
    const strength = element("span", "strength", row.rsi_14 == null ? "" : `RSI ${format.rsi(row.rsi_14)}`);
    if (row.rsi_14 > 70) strength.append(" high");
    if (row.rsi_14 < 30) strength.append(" low");
    line.append(
      element("span", "name", row.symbol),
      sparkline(row.spark, row.prev_close, way),
      element("span", "last", format.price(row.last)),
      element("span", `change ${way}`, shape(way), format.signed(row.change_pct, " %")),
      element("span", "state", trend, strength),
      element("span", `age ${row.freshness}`, ...freshness(row)),
    );
    return line;
  }

  /** Offer the named lists of symbols. The reader's choice stays while there is a list with that name. */
  offer(lists) {
    this.lists = lists;
    const names = Object.keys(lists);
    const options = ["", ...names].map((name) => new Option(name ? `@${name}` : "All symbols", name));
    this.select.replaceChildren(...options);
    this.select.value = names.find((name) => name === choices.get("list", "")) ?? "";
    this.select.hidden = !names.length;
    this.applyFilter();
  }

  visible() {
    return [...this.lines].filter(([, line]) => !line.hidden).map(([symbol]) => symbol).sort();
  }

  applyFilter() {
    const wanted = this.filter.value.trim().toUpperCase();
    const name = this.select.value;
    const members = name && new Set(this.lists[name]);
    for (const [symbol, line] of this.lines) line.hidden = !symbol.includes(wanted) || (members && !members.has(symbol));
    const none = byId("no-match");
    none.hidden = this.visible().length > 0;
    const some = `No symbol${name && ` of @${name}`}`;
    none.textContent = none.hidden ? "" : `${some} ${wanted ? `contains ${wanted}` : "has bars"}.`;
  }

  choose(symbol) {
    if (symbol === this.symbol || !this.rows.has(symbol)) return;
    this.symbol = symbol;
    this.markChoice();
    this.onChoice(symbol);
  }

  markChoice() {
    for (const [symbol, line] of this.lines) line.setAttribute("aria-selected", symbol === this.symbol);
    const line = this.lines.get(this.symbol);
    this.list.setAttribute("aria-activedescendant", line?.id ?? "");
  }

  onKey(event) {
    const symbols = this.visible();
    const at = symbols.indexOf(this.symbol);
    const last = symbols.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last, PageDown: at + 8, PageUp: at - 8 }[event.key];
    if (to === undefined || !symbols.length) return;
    event.preventDefault();
    this.choose(symbols[Math.max(0, Math.min(last, to))]);
    this.lines.get(this.symbol).scrollIntoView({ block: "nearest" });
  }
}

function freshness(row) {
  if (row.freshness === "closed") return ["closed"];
  const age = row.age_minutes == null ? "" : format.age(row.age_minutes);
  return row.freshness === "stale" ? [shape("warn"), `stale ${age}`.trim()] : [age];
}

function trendTitle(row) {
  if (!row.trend) return "There are not enough sessions for an average yet.";
  return `Last ${format.price(row.last)}, 20-day average ${format.price(row.sma_20)}, 50-day average ${format.price(row.sma_50)}`;
}

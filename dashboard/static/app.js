// What does the page do? It reads everything once, then follows the server's events; every reader's choice is kept.

import * as api from "./api.js";
import { Chart, rowsOf } from "./chart.js";
import { choice, element, find, kept, mark } from "./dom.js";
import * as format from "./format.js";
import { AlertList, drawHealth } from "./panels.js";
import { Watchlist } from "./watchlist.js";

const PAGE = 600;
const NEWEST = 240; // what an event may have changed: the last sessions of 5-minute bars
const HEALTH_SECONDS = 15;
const state = {
  symbol: "", interval: kept.get("interval", "5min"), older: null, loading: false, market: null,
  asked: 0, reads: 0, refreshes: 0, // an answer that a later question overtook is dropped
};
const shown = new Set(kept.get("shown", "ma20 ma50 vwap rsi").split(" ").filter(Boolean));

const watch = new Watchlist((symbol) => open(symbol));
const alerts = new AlertList((symbol) => {
  watch.choose(symbol);
  find("chart-panel").focus();
});
let chart;

async function start() {
  setUpSwitches();
  setUpLogin();
  const session = await guarded(api.session);
  if (!session) return setTimeout(start, 3000);
  if (session.login_required && !session.signed_in) return only("login");
  find("sign-out").hidden = !session.login_required;
  await readAll();
  api.listen({
    up: () => link("") || readAll(),
    down: () => link("connection lost, trying again"),
    trouble: ({ detail }) => banner(detail),
    clock: (market) => onMarket(market),
    bars: onBars,
    alert: onAlert,
  });
  setInterval(readHealth, HEALTH_SECONDS * 1000);
}

/** Everything that is on the page; also after a lost connection. */
async function readAll() {
  const read = ++state.reads;
  const events = watch.events;
  const [list, fired] = await Promise.all([guarded(api.watchlist), guarded(() => api.alerts(null, 100))]);
  if (!list || !fired || read !== state.reads) return;
  banner("");
  if (!list.rows.length) return only("empty");
  only("page");
  chart ??= new Chart(find("chart"), { onOlder, onHover: drawLegend });
  chart.show(shown);
  watch.take(list.rows, events);
  alerts.take(fired.alerts);
  onMarket(list.market);
  const wanted = kept.get("symbol", "");
  const symbol = watch.rows.has(state.symbol) ? state.symbol : watch.rows.has(wanted) ? wanted : list.rows[0].symbol;
  chart.mark(alerts.alerts);
  if (symbol === watch.symbol) await refresh();
  else watch.choose(symbol);
  await readHealth();
}

/** Shows another symbol or interval. */
async function open(symbol) {
  state.symbol = symbol;
  kept.set("symbol", symbol);
  const asked = ++state.asked;
  find("symbol").textContent = symbol;
  drawQuote();
  const [page, fired] = await Promise.all([
    guarded(() => api.bars(symbol, state.interval, { limit: PAGE })),
    guarded(() => api.alerts(symbol, 200)),
  ]);
  if (!page || !fired || asked !== state.asked) return;
  state.older = page.older;
  chart.open(symbol, page.interval, rowsOf(page), [...fired.alerts, ...alerts.alerts]);
  find("chart-panel").dataset.shown = `${symbol} ${page.interval}`;
  drawLegend(null);
}

/** Takes the newest candles of what is shown; where that is not what was chosen, or they leave a hole, opens it anew. */
async function refresh() {
  if (!chart.shows(state.symbol, state.interval)) return open(state.symbol);
  const asked = state.asked;
  const turn = ++state.refreshes;
  const page = await guarded(() => api.bars(state.symbol, state.interval, { limit: NEWEST }));
  if (!page || asked !== state.asked || turn !== state.refreshes) return;
  const rows = rowsOf(page);
  if (rows[0]?.time > chart.newest()?.time) return open(state.symbol);
  if (chart.merge(rows)) drawLegend(null);
}

async function onOlder() {
  if (state.loading || !state.older) return;
  state.loading = true;
  const asked = state.asked;
  const page = await guarded(() => api.bars(state.symbol, state.interval, { before: state.older, limit: PAGE }));
  if (page && asked === state.asked) {
    state.older = page.older;
    chart.merge(rowsOf(page));
  }
  state.loading = false;
}

async function onBars({ market, rows }) {
  if (!chart || find("page").hidden) return readAll();
  banner("");
  watch.hear(rows);
  onMarket(market);
  drawQuote();
  if (rows.some((row) => row.symbol === state.symbol)) await refresh();
}

function onAlert(alert) {
  alerts.add(alert);
  chart?.mark([alert]);
}

async function readHealth() {
  if (find("page").hidden || document.hidden) return;
  const health = await guarded(api.health);
  if (health) drawHealth(health);
}

function onMarket(market) {
  state.market = market;
  watch.tick(market.now);
  const pill = find("market");
  const next = market.next_open && `opens ${format.dayTime(market.next_open)}`;
  const words = market.open ? `closes ${format.clock(market.closes)}` : next;
  pill.className = `market ${market.open ? "open" : "shut"}`;
  pill.replaceChildren(
    element("b", "", market.open ? "Market open" : "Market closed"),
    element("span", "", `${format.dayTime(market.now)} ${format.zoneName()}`),
    element("span", "more", words ? words : ""),
  );
  drawQuote();
}

function drawQuote() {
  const row = watch.rows.get(state.symbol);
  if (!row) return;
  const way = format.direction(row.change);
  find("quote").replaceChildren(
    element("b", "", format.price(row.last)),
    element("span", way, mark(way), `${format.signed(row.change)} (${format.signed(row.change_pct, " %")})`),
    ...(row.freshness === "stale" ? [element("span", "stale-mark", `stale: newest bar ${format.dayTime(row.newest_bar)}`)] : []),
  );
  find("chart-panel").classList.toggle("is-stale", row.freshness === "stale");
}

/** The values of the bar under the pointer, else of the newest one. */
function drawLegend(bar) {
  const at = bar ?? chart.newest();
  if (!at) return;
  const way = at.close < at.open ? "down" : "up";
  const part = (name, text, className = "") => element("span", className, element("i", "", name), text);
  find("legend").replaceChildren(
    element("time", "", at.when), part("O", format.price(at.open)), part("H", format.price(at.high)),
    part("L", format.price(at.low)), part("C", format.price(at.close), way), part("V", format.volume(at.volume)),
    ...[["ma20", "MA 20"], ["ma50", "MA 50"], ["vwap", "VWAP"]]
      .filter(([key]) => shown.has(key))
      .map(([key, name]) => part(name, format.price(at.indicators[key]), `of-${key}`)),
    ...(shown.has("rsi") ? [part("RSI", format.rsi(at.indicators.rsi), "of-rsi")] : []),
    ...(at.complete ? [] : [element("span", "forming", "forming or incomplete")]),
  );
}

function setUpSwitches() {
  choice("interval", (value) => {
    state.interval = value;
    kept.set("interval", value);
    if (state.symbol) open(state.symbol);
  })(state.interval);
  const zone = choice("zone", (value) => {
    format.setZone(value);
    kept.set("zone", value);
    redrawTimes();
  });
  format.setZone(kept.get("zone", "ny"));
  zone(kept.get("zone", "ny"));
  const theme = (value) => {
    kept.set("theme", value);
    if (value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
    chart?.recolour();
  };
  choice("theme", theme)(kept.get("theme", "auto"));
  theme(kept.get("theme", "auto"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart?.recolour());
  for (const box of find("shown").querySelectorAll("input")) {
    box.checked = shown.has(box.value);
    box.addEventListener("change", () => {
      if (box.checked) shown.add(box.value);
      else shown.delete(box.value);
      kept.set("shown", [...shown].join(" "));
      chart?.show(shown);
      if (chart) drawLegend(null);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input")) return;
    event.preventDefault();
    find("filter").focus();
  });
}

function redrawTimes() {
  if (state.market) onMarket(state.market);
  alerts.draw();
  readHealth();
  if (!chart) return;
  chart.draw();
  chart.chart.applyOptions({ timeScale: {} });
  drawLegend(null);
}

function setUpLogin() {
  find("login-form").onsubmit = async (event) => {
    event.preventDefault();
    try {
      await api.signIn(find("token").value);
      location.reload();
    } catch (error) {
      find("login-error").textContent = error.message;
      find("token").select();
    }
  };
  find("sign-out").onclick = () => guarded(api.signOut).then(() => location.reload());
}

/** What a question answers, or null once the reader has been told why there is no answer. */
async function guarded(question) {
  try {
    return await question();
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    if (error.status === 401) only("login");
    else banner(error.message);
    return null;
  }
}

function banner(text) {
  find("banner").textContent = text;
  find("banner").hidden = !text;
}

function link(text) {
  find("link").textContent = text;
  find("link").hidden = !text;
  document.body.classList.toggle("cut-off", Boolean(text));
}

function only(name) {
  for (const part of ["page", "empty", "login"]) find(part).hidden = part !== name;
  if (name === "login") find("token").focus();
}

start();

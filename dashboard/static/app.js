// The page: it reads everything once, then follows the server's events. The browser stores the reader's choices.

import * as api from "./api.js";
import { drawBacktests } from "./backtests.js";
import { Chart, rowsOf } from "./chart.js";
import { byId, choices, element, radioGroup, shape } from "./dom.js";
import * as format from "./format.js";
import { AlertList, drawHealth } from "./panels.js";
import { Watchlist } from "./watchlist.js";
import { WhyPanel } from "./why.js";

const PAGE = 600;
const NEWEST = 240; // the bars that an event may have changed: about three sessions of 5-minute bars
const HEALTH_SECONDS = 15;
const state = {
  symbol: "", interval: choices.get("interval", "5min"), adjust: choices.get("adjust", "splits"),
  applied: "splits", // what the chart shows: not dividends where the server cannot apply them
  shares: "", // names the shares in which the candles are; other candles do not join them
  older: null, loading: false, market: null,
  opens: 0, reads: 0, refreshes: 0, // an answer is dropped once a later request of its kind has started
};
const shown = new Set(choices.get("shown", "ma20 ma50 vwap rsi").split(" ").filter(Boolean));

const watch = new Watchlist((symbol) => open(symbol));
const alerts = new AlertList((symbol) => {
  if (symbol === "*") return; // an alert of the feed has no chart
  watch.choose(symbol);
  byId("chart-panel").focus();
});
const why = new WhyPanel(guarded);
let chart;

async function start() {
  const session = await guarded(api.session);
  if (!session) return setTimeout(start, 3000);
  if (session.login_required && !session.signed_in) return showOnly("login");
  byId("sign-out").hidden = !session.login_required;
  await readAll();
  api.listen({
    up: () => {
      showConnection("");
      readAll();
    },
    down: () => showConnection("Connection lost. Reconnecting …"),
    closed: async () => {
      const { login_required: required, signed_in: signedIn } = (await guarded(api.session)) ?? {};
      if (required && !signedIn) showOnly("login");
      return !required || signedIn;
    },
    outage: ({ detail }) => showBanner(detail),
    clock: showMarket,
    bars: onBars,
    alert: onAlert,
  });
  setInterval(readHealth, HEALTH_SECONDS * 1000);
}

/** Read everything on the page: at the start, and after a lost connection. */
async function readAll() {
  const read = ++state.reads;
  const events = watch.events;
  const [list, fired] = await Promise.all([guarded(api.watchlist), guarded(() => api.alerts(null, 100))]);
  if (!list || !fired || read !== state.reads) return;
  showBanner("");
  if (!list.rows.length) return showOnly("empty");
  showOnly("page");
  chart ??= new Chart(byId("chart"), byId("actions"), {
    onOlder, onHover: drawLegend, onPick: (time) => why.open(state.symbol, time),
  });
  chart.show(shown);
  watch.replace(list.rows, events);
  watch.offer(list.lists);
  alerts.replace(fired.alerts, fired.unreadable);
  showMarket(list.market);
  const symbol = [state.symbol, choices.get("symbol", "")].find((name) => watch.rows.has(name)) ?? list.rows[0].symbol;
  chart.markAlerts(alerts.alerts);
  if (symbol === watch.symbol) await refresh();
  else watch.choose(symbol);
  await readHealth();
}

/** Show another symbol, interval or adjustment; `keepRange` shows the same time as before. */
async function open(symbol, { keepRange = false } = {}) {
  if (symbol !== state.symbol) why.close();
  state.symbol = symbol;
  choices.set("symbol", symbol);
  const turn = ++state.opens;
  byId("symbol").textContent = symbol;
  drawQuote();
  const [page, fired] = await Promise.all([
    guarded(() => firstBars(symbol)),
    guarded(() => api.alerts(symbol, 200)),
  ]);
  if (!page || !fired || turn !== state.opens) return;
  Object.assign(state, { older: page.older, applied: page.adjust, shares: sharesOf(page) });
  chart.open(page, [...fired.alerts, ...alerts.alerts], keepRange);
  Object.assign(byId("chart-panel").dataset, { shown: `${symbol} ${page.interval}`, adjust: page.adjust });
  drawBasis(page);
  drawLegend(null);
}

/** Read the first candles of a chart. Where the server cannot apply dividends, the answer names the reason. */
async function firstBars(symbol) {
  const { interval, adjust } = state;
  try {
    return await api.bars(symbol, interval, adjust, { limit: PAGE });
  } catch (error) {
    if (adjust !== "all" || error.status !== 400) throw error;
    return { ...(await api.bars(symbol, interval, "splits", { limit: PAGE })), reason: error.message };
  }
}

const sharesOf = (page) =>
  [page.adjust, page.basis, page.actions_known_from, page.splits_fetched, page.dividends_fetched].join(" ");

/** Show below the chart what its prices are. */
function drawBasis({ symbol, adjust, reason }) {
  const never = `not adjusted: the splits of ${symbol} were never fetched. Run barflow actions refresh.`;
  const texts = {
    none: state.adjust === "none" ? "as stored, not adjusted." : never,
    splits: `adjusted for splits${reason ? " only" : ""}; raw prices are stored.`,
    all: "adjusted for splits and dividends; raw prices are stored.",
  };
  byId("basis").textContent = `Prices in US dollars, ${texts[adjust]}${reason ? ` ${reason}` : ""}`;
}

/** Read the newest candles of the chart. Open it again if it shows something else, or if they leave a gap. */
async function refresh() {
  if (!chart.shows(state.symbol, state.interval)) return open(state.symbol);
  const { opens } = state;
  const turn = ++state.refreshes;
  const page = await guarded(() => api.bars(state.symbol, state.interval, state.applied, { limit: NEWEST }));
  if (!page || opens !== state.opens || turn !== state.refreshes) return;
  if (sharesOf(page) !== state.shares) return open(state.symbol, { keepRange: true });
  const rows = rowsOf(page);
  if (rows[0]?.time > chart.newest()?.time) return open(state.symbol);
  if (chart.merge(rows)) drawLegend(null);
}

async function onOlder() {
  if (state.loading || !state.older) return;
  state.loading = true;
  const { opens, older: before } = state;
  const page = await guarded(() => api.bars(state.symbol, state.interval, state.applied, { before, limit: PAGE }));
  state.loading = false;
  if (!page || opens !== state.opens) return;
  if (sharesOf(page) !== state.shares) return open(state.symbol, { keepRange: true });
  state.older = page.older;
  chart.actions = page.actions; // older candles have more of them
  chart.merge(rowsOf(page));
}

async function onBars({ market, rows }) {
  if (!chart || byId("page").hidden) return readAll();
  showBanner("");
  watch.update(rows);
  showMarket(market);
  drawQuote();
  if (rows.some((row) => row.symbol === state.symbol)) await refresh();
}

function onAlert(alert) {
  alerts.add(alert);
  chart?.markAlerts([alert]);
}

async function readHealth() {
  if (byId("page").hidden || document.hidden) return;
  const health = await guarded(api.health);
  if (!health) return;
  showBanner(""); // both stores answer again
  drawHealth(health);
  await readBacktests();
}

/** Read the backtests while their tab is shown. */
async function readBacktests() {
  if (byId("backtests").hidden) return;
  const found = await guarded(api.backtests);
  if (found) drawBacktests(found);
}

/** Show the alerts or the backtests. */
function showSide(name) {
  byId("alerts").hidden = byId("alerts-count").hidden = name !== "alerts";
  byId("backtests").hidden = name !== "backtests";
  return readBacktests();
}

function showMarket(market) {
  state.market = market;
  watch.tick(market.now);
  const pill = byId("market");
  const next = market.next_open && `opens ${format.dayTime(market.next_open)}`;
  const change = market.open ? `closes ${format.clock(market.closes)}` : next;
  pill.className = `market ${market.open ? "open" : "shut"}`;
  pill.replaceChildren(
    element("b", "", market.open ? "Market open" : "Market closed"),
    element("span", "", `${format.dayTime(market.now)} ${format.zoneName()}`),
    element("span", "more", change || ""),
  );
  drawQuote();
}

function drawQuote() {
  const row = watch.rows.get(state.symbol);
  if (!row) return;
  const way = format.direction(row.change);
  byId("quote").replaceChildren(
    element("b", "", format.price(row.last)),
    element("span", way, shape(way), `${format.signed(row.change)} (${format.signed(row.change_pct, " %")})`),
    row.freshness === "stale" ? element("span", "stale-mark", shape("warn"), staleText(row)) : "",
  );
  byId("chart-panel").classList.toggle("is-stale", row.freshness === "stale");
}

function staleText(row) {
  return row.newest_bar ? `stale: newest bar ${format.dayTime(row.newest_bar)}` : "stale: no 5-minute bar";
}

/** Show the values of the bar under the pointer, or of the newest bar. */
function drawLegend(bar) {
  const at = bar ?? chart.newest();
  if (!at) return;
  const way = at.close < at.open ? "down" : "up";
  const part = (name, text, className = "") => element("span", className, element("i", "", name), text);
  byId("legend").replaceChildren(
    element("time", "", at.when), part("O", format.price(at.open)), part("H", format.price(at.high)),
    part("L", format.price(at.low)), part("C", format.price(at.close), way), part("V", format.volume(at.volume)),
    at.complete ? "" : element("span", "forming", "forming or incomplete"),
  );
  for (const box of byId("shown").querySelectorAll("input")) {
    const write = box.value === "rsi" ? format.rsi : format.price;
    byId(`value-${box.value}`).textContent = box.checked ? write(at.indicators[box.value]) : "";
  }
}

function setUpSwitches() {
  radioGroup("side", showSide)("alerts");
  radioGroup("interval", (value) => {
    state.interval = value;
    choices.set("interval", value);
    if (state.symbol) open(state.symbol);
  })(state.interval);
  radioGroup("adjust", (value) => {
    state.adjust = value;
    choices.set("adjust", value);
    if (state.symbol) open(state.symbol, { keepRange: true });
  })(state.adjust);
  const zone = radioGroup("zone", (value) => {
    format.setZone(value);
    choices.set("zone", value);
    redrawTimes();
  });
  format.setZone(choices.get("zone", "ny"));
  zone(choices.get("zone", "ny"));
  const setTheme = (value) => {
    choices.set("theme", value);
    if (value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
    chart?.updateColours();
  };
  radioGroup("theme", setTheme)(choices.get("theme", "auto"));
  setTheme(choices.get("theme", "auto"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart?.updateColours());
  for (const box of byId("shown").querySelectorAll("input")) {
    box.checked = shown.has(box.value);
    box.addEventListener("change", () => {
      if (box.checked) shown.add(box.value);
      else shown.delete(box.value);
      choices.set("shown", [...shown].join(" "));
      chart?.show(shown);
      if (chart) drawLegend(null);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input")) return;
    event.preventDefault();
    byId("filter").focus();
  });
}

function setUpWhy() {
  byId("why-open").onclick = () => chart?.newest() && why.open(state.symbol, chart.newest().time);
}

function redrawTimes() {
  if (state.market) showMarket(state.market);
  alerts.draw();
  why.draw();
  readHealth();
  if (!chart) return;
  chart.draw();
  chart.chart.applyOptions({ timeScale: {} });
  drawLegend(null);
}

function setUpLogin() {
  byId("login-form").onsubmit = async (event) => {
    event.preventDefault();
    try {
      await api.signIn(byId("token").value);
      location.reload();
    } catch (error) {
      byId("login-error").textContent = error.message;
      byId("token").select();
    }
  };
  byId("sign-out").onclick = () => guarded(api.signOut).then(() => location.reload());
}

/** Return the answer to a request, or null where it failed; the page then shows the reason. */
async function guarded(request) {
  try {
    return await request();
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status === 401) showOnly("login");
    else showBanner(error.message);
    return null;
  }
}

function showBanner(text) {
  byId("banner").textContent = text;
  byId("banner").hidden = !text;
}

function showConnection(text) {
  byId("link").textContent = text;
  byId("link").hidden = !text;
  document.body.classList.toggle("cut-off", Boolean(text));
}

/** Show one of the page's parts, and hide the others. */
function showOnly(name) {
  for (const part of ["page", "empty", "login"]) byId(part).hidden = part !== name;
  if (name !== "login") return;
  byId("sign-out").hidden = true;
  showConnection("");
  byId("token").focus();
}

setUpSwitches();
setUpWhy();
setUpLogin();
start();

// The chart of a symbol: candles and volume, moving averages and VWAP over them, RSI below them, alerts as markers.
// Splits and dividends are buttons over the chart, so that the keyboard and screen readers reach them.

import {
  CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, LineSeries, LineStyle, TickMarkType,
  createChart, createSeriesMarkers,
} from "/static/vendor/lightweight-charts.mjs";
import { capitalized, element, rovingFocus } from "./dom.js";
import * as format from "./format.js";
import { movingAverage, relativeStrength, sessionVwap } from "./indicators.js";

const VISIBLE_AT_FIRST = { "5min": 156, "30min": 130, "1h": 140, "1d": 120 };
const LINES = ["ma20", "ma50", "vwap"];
const SOURCES = { endpoint: "listed by Twelve Data", derived: "derived from daily bars", file: "imported from a file" };
const MARK_HEIGHT = 22;
const HALF_TIP = 145; // of the widest tooltip, in pixels
const newYorkDay = new Intl.DateTimeFormat("en-CA", { timeZone: "America/New_York" });

export class Chart {
  /** `marks` holds the splits and dividends. `onOlder` is called near the oldest candle, `onHover` with the bar under
   *  the pointer or null, `onPick` with the time of a clicked candle. */
  constructor(element, marks, { onOlder, onHover, onPick }) {
    this.element = element;
    this.marks = marks;
    this.actions = [];
    this.marked = []; // the actions that have a button, with it
    this.bars = [];
    rovingFocus(marks);
    this.alerts = new Map();
    this.interval = "5min";
    this.chart = createChart(element, {
      autoSize: true,
      layout: { attributionLogo: false }, // the logo needs an inline style; the footer names TradingView
      localization: { timeFormatter: (time) => this.barTime(time) },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { minimumWidth: 68 },
      timeScale: { timeVisible: true, secondsVisible: false, rightOffset: 4, minBarSpacing: 1.5, tickMarkFormatter: axisLabel },
      handleScroll: { vertTouchDrag: false },
    });
    const priceFormat = { type: "custom", minMove: 0.01, formatter: format.price };
    const quiet = { priceLineVisible: false, lastValueVisible: false, crosshairMarkerVisible: false };
    this.candles = this.chart.addSeries(CandlestickSeries, { priceFormat, priceLineVisible: false, lastValueVisible: false }, 0);
    this.lastPrice = this.candles.createPriceLine({ price: 0, lineWidth: 1, lineStyle: LineStyle.Dotted, lineVisible: false });
    this.volume = this.chart.addSeries(
      HistogramSeries, { ...quiet, priceFormat: { type: "volume" }, priceScaleId: "volume" }, 0,
    );
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.candles.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.2 } });
    this.lines = Object.fromEntries(
      LINES.map((key) => [key, this.chart.addSeries(LineSeries, { ...quiet, priceFormat, lineWidth: 1.5 }, 0)]),
    );
    this.markers = createSeriesMarkers(this.candles, []);
    this.quiet = quiet;
    this.values = {};
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      this.placeActions();
      if (range && range.from < 10 && this.bars.length) onOlder();
    });
    this.chart.timeScale().subscribeSizeChange(() => this.placeActions());
    this.chart.subscribeCrosshairMove(({ time }) => onHover(time == null ? null : this.at(time)));
    this.chart.subscribeClick(({ time }) => time != null && this.at(time) && onPick(time));
    this.updateColours();
  }

  /** Show the named lines, and hide the others. RSI has its own pane. */
  show(names) {
    for (const key of LINES) this.lines[key].applyOptions({ visible: names.has(key) });
    if (names.has("rsi") && !this.rsi) {
      const fullRange = () => ({ priceRange: { minValue: 0, maxValue: 100 } });
      this.rsi = this.chart.addSeries(
        LineSeries,
        { ...this.quiet, lastValueVisible: true, lineWidth: 1.5, autoscaleInfoProvider: fullRange,
          priceFormat: { type: "custom", minMove: 0.1, formatter: format.rsi } },
        1,
      );
      this.bounds = [70, 30].map((level) =>
        this.rsi.createPriceLine({ price: level, lineWidth: 1, lineStyle: LineStyle.Dotted, axisLabelVisible: false, title: "" }),
      );
      this.rsi.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.08 } });
      this.chart.panes()[0].setStretchFactor(4);
      this.chart.panes()[1].setStretchFactor(1);
      this.updateColours();
      this.draw();
    } else if (!names.has("rsi") && this.rsi) {
      this.chart.removeSeries(this.rsi);
      this.rsi = null;
    }
  }

  /** Show the API's answer with candles, and the alerts of its symbol. `keepRange` shows the same time as before. */
  open(page, alerts, keepRange) {
    const { symbol, interval } = page;
    const bars = rowsOf(page);
    const range = keepRange && this.shows(symbol, interval) ? this.chart.timeScale().getVisibleLogicalRange() : null;
    const shift = bars.length - this.bars.length; // the newest candles stay in their place
    this.symbol = symbol;
    this.interval = interval;
    this.bars = bars;
    this.actions = page.actions;
    this.alerts.clear();
    this.addAlerts(alerts);
    this.chart.applyOptions({ timeScale: { timeVisible: interval !== "1d" } });
    this.draw();
    const last = bars.length + 4;
    const newest = { from: last - this.fitting(), to: last };
    this.chart.timeScale().setVisibleLogicalRange(range ? { from: range.from + shift, to: range.to + shift } : newest);
    this.placeActions();
  }

  /** The number of candles that the width has room for. */
  fitting() {
    return Math.min(VISIBLE_AT_FIRST[this.interval], Math.max(40, Math.floor(this.element.clientWidth / 6)));
  }

  /** Add newer or older bars; a given bar replaces the bar of the same time. Returns whether anything changed. */
  merge(bars) {
    const known = new Map(this.bars.map((bar) => [bar.time, bar]));
    const fresh = bars.filter((bar) => JSON.stringify(known.get(bar.time)) !== JSON.stringify(bar));
    if (!fresh.length) return false;
    for (const bar of fresh) known.set(bar.time, bar);
    this.bars = [...known.values()].sort((a, b) => a.time - b.time);
    this.draw();
    return true;
  }

  /** Whether the chart shows this symbol and interval. */
  shows(symbol, interval) {
    return symbol === this.symbol && interval === this.interval;
  }

  /** Add markers for the alerts of the shown symbol. */
  markAlerts(alerts) {
    this.addAlerts(alerts);
    this.drawMarkers();
  }

  addAlerts(alerts) {
    for (const { message } of alerts) if (message.symbol === this.symbol) this.alerts.set(message.id, message);
  }

  draw() {
    const bars = this.bars;
    const closes = bars.map((bar) => bar.close);
    const days = bars.map((bar) => newYorkDay.format(bar.time * 1000));
    const vwaps = sessionVwap(bars.map((bar) => bar.vwap), bars.map((bar) => bar.volume), days);
    this.values = { ma20: movingAverage(closes, 20), ma50: movingAverage(closes, 50), vwap: vwaps, rsi: relativeStrength(closes) };
    const { upSoft, downSoft } = this.colours;
    this.candles.setData(bars.map(({ time, open, high, low, close }) => ({ time, open, high, low, close })));
    this.volume.setData(
      bars.map(({ time, open, close, volume }) => ({ time, value: volume, color: close < open ? downSoft : upSoft })),
    );
    const points = (values) =>
      bars.map(({ time }, at) => (values[at] == null ? { time } : { time, value: values[at] }));
    // VWAP restarts at each session's open: no line connects it with the previous close.
    const vwapPoints = bars.map(({ time }, at) => {
      const starts = this.interval !== "1d" && at + 1 < bars.length && days[at + 1] !== days[at];
      return vwaps[at] == null ? { time } : { time, value: vwaps[at], ...(starts && { color: "transparent" }) };
    });
    for (const key of ["ma20", "ma50"]) this.lines[key].setData(points(this.values[key]));
    this.lines.vwap.setData(vwapPoints);
    this.rsi?.setData(points(this.values.rsi));
    this.drawLastPrice();
    this.drawMarkers();
    this.drawActions(days);
  }

  /** Make a button for each split and dividend that has a candle before it and one from its ex-date on. */
  drawActions(days) {
    const counts = new Map();
    const found = this.actions.flatMap(({ kind, ex_date: exDate, label, source }) => {
      const place = days.findIndex((day) => day >= exDate);
      if (place < 1) return [];
      const { time } = this.bars[place];
      const level = counts.get(time) ?? 0; // actions of one day are above each other
      counts.set(time, level + 1);
      return [{ kind, time, level, text: `${capitalized(label)}, ex-date ${format.sessionDate(exDate)}, ${SOURCES[source]}` }];
    });
    const old = this.marked.map(({ button, ...action }) => action);
    if (JSON.stringify(found) === JSON.stringify(old)) return; // a focused button stays
    this.marked = found.map((action) => ({ ...action, button: markOf(action) }));
    this.marks.replaceChildren(...this.marked.map(({ button }) => button));
    this.placeActions();
  }

  /** Move the buttons to their candles, and hide those of candles that are not in view. */
  placeActions() {
    if (!this.marked.length) return;
    const bottom = this.chart.panes()[0].getHeight();
    const width = this.chart.timeScale().width();
    for (const { button, time, level } of this.marked) {
      const x = this.chart.timeScale().timeToCoordinate(time);
      button.hidden = x == null || x < 0 || x > width;
      button.style.left = `${x}px`;
      const top = `${bottom - (level + 1) * MARK_HEIGHT}px`;
      button.style.top = top;
      button.style.setProperty("--above", top); // the length of a split's line
      const shift = Math.max(0, HALF_TIP - x) - Math.max(0, x + HALF_TIP - this.element.clientWidth);
      button.style.setProperty("--shift", `${shift}px`); // keeps its tooltip in the chart
    }
    const first = this.marked.find(({ button }) => !button.hidden);
    for (const { button } of this.marked) button.tabIndex = button === first?.button ? 0 : -1;
  }

  /** Draw the newest close. The series' own price line would take the colour of a hollow candle, the background's. */
  drawLastPrice() {
    const last = this.bars.at(-1);
    if (!last) return;
    const color = last.close < last.open ? this.colours.down : this.colours.up;
    this.lastPrice.applyOptions({ price: last.close, color, axisLabelColor: color, lineVisible: true });
  }

  /** Draw one marker per candle and direction; its text shows how many alerts it stands for. */
  drawMarkers() {
    const found = new Map();
    let marked = 0;
    for (const message of this.alerts.values()) {
      const time = this.bucket(Date.parse(message.bar_start) / 1000);
      if (time == null) continue;
      marked += 1;
      const key = `${time} ${message.direction ?? ""}`;
      found.set(key, { time, direction: message.direction, kinds: [...(found.get(key)?.kinds ?? []), message.kind] });
    }
    const shapes = { up: "arrowUp", down: "arrowDown" };
    const markers = [...found.values()].map(({ time, direction, kinds }) => ({
      time,
      position: direction === "up" ? "belowBar" : "aboveBar",
      shape: shapes[direction] ?? "circle",
      color: this.colours.mark,
      text: kinds.length > 1 ? `${kinds[0]} +${kinds.length - 1}` : kinds[0],
    }));
    this.markers.setMarkers(markers.sort((a, b) => a.time - b.time));
    if (!this.symbol) return;
    const about = `Candles of ${this.symbol}, ${this.interval}, with volume and indicators; alerts marked: ${marked}`;
    this.element.setAttribute("aria-label", about);
  }

  /** The time of the candle that contains a moment, or null where it is not loaded. */
  bucket(seconds) {
    let low = 0, high = this.bars.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.bars[middle].time <= seconds) low = middle + 1;
      else high = middle;
    }
    return low ? this.bars[low - 1].time : null;
  }

  /** The bar at a time with its indicators, or null. */
  at(time) {
    const place = this.bars.findIndex((bar) => bar.time === time);
    return place < 0 ? null : this.describe(place);
  }

  newest() {
    return this.bars.length ? this.describe(this.bars.length - 1) : null;
  }

  describe(place) {
    const values = Object.fromEntries(Object.entries(this.values).map(([key, found]) => [key, found[place]]));
    return { ...this.bars[place], ...values, indicators: values, when: this.barTime(this.bars[place].time) };
  }

  barTime(time) {
    return this.interval === "1d" ? format.longTime(time).replace(/,? \d\d:\d\d$/, "") : format.longTime(time);
  }

  /** Apply the colours of the page's theme. */
  updateColours() {
    const colour = (name) => getComputedStyle(this.element.ownerDocument.querySelector(`.key.${name}`)).color;
    this.colours = Object.fromEntries(
      ["up", "down", "upSoft", "downSoft", "ma20", "ma50", "vwap", "rsi", "mark", "ink", "faint", "ground"].map((name) => [
        name, colour(name),
      ]),
    );
    const { up, down, ink, faint, ground } = this.colours;
    this.chart.applyOptions({
      layout: {
        background: { type: ColorType.Solid, color: ground }, textColor: ink, fontSize: 11, attributionLogo: false,
        fontFamily: getComputedStyle(this.element).fontFamily, panes: { separatorColor: faint, separatorHoverColor: faint },
      },
      grid: { vertLines: { visible: false }, horzLines: { color: faint } },
      rightPriceScale: { borderColor: faint },
      timeScale: { borderColor: faint },
      crosshair: { vertLine: { labelBackgroundColor: ink }, horzLine: { labelBackgroundColor: ink } },
    });
    // Rising candles are hollow, falling ones filled: the shape shows the direction, not only the colour.
    this.candles.applyOptions({
      upColor: ground, borderUpColor: up, wickUpColor: up, downColor: down, borderDownColor: down, wickDownColor: down,
    });
    for (const key of LINES) this.lines[key].applyOptions({ color: this.colours[key] });
    this.rsi?.applyOptions({ color: this.colours.rsi });
    this.bounds?.forEach((line) => line.applyOptions({ color: ink }));
    if (this.bars.length) this.draw();
  }
}

function markOf({ kind, text }) {
  const button = element("button", `action ${kind}`, kind === "split" ? "S" : "D", element("span", "tip", text));
  button.type = "button";
  button.setAttribute("aria-label", text);
  return button;
}

/** A label of the time axis: the year, month or day where it changes, else the time. */
function axisLabel(time, kind) {
  if (kind === TickMarkType.Year) return format.yearOf(time);
  if (kind === TickMarkType.Month) return format.monthOf(time).split(" ")[0];
  return kind === TickMarkType.DayOfMonth ? format.day(time) : format.clock(time);
}

/** The API's parallel arrays as one object per bar. */
export function rowsOf(page) {
  return page.time.map((time, at) => ({
    time, open: page.open[at], high: page.high[at], low: page.low[at], close: page.close[at],
    volume: page.volume[at], vwap: page.vwap[at], complete: page.complete[at],
  }));
}

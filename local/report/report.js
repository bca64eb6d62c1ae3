// Reads out the bar under the pointer above its chart. A hidden slider does the same from the keyboard.
"use strict";

const time = new Intl.DateTimeFormat("en-US", {
  timeZone: "America/New_York",
  weekday: "short",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const shares = new Intl.NumberFormat("en-US");

for (const figure of document.querySelectorAll("figure.chart")) {
  const plot = figure.querySelector(".plot");
  const canvas = figure.querySelector(".canvas");
  const band = figure.querySelector(".band");
  const slider = figure.querySelector("input");
  const readout = figure.querySelector("output");
  const places = Number(figure.dataset.decimals);
  const newest = Number(slider.max);
  const { t, o, h, l, c, v, slots, short } = JSON.parse(figure.querySelector("script").textContent);
  t.forEach((minutes, index) => (t[index] = minutes + (t[index - 1] ?? 0)));
  const slot = (index) => slots?.[index] ?? index;
  const count = Number(figure.dataset.slots);

  const price = (value) =>
    value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });

  function show(index, marked) {
    const parts = [
      ["Open", price(o[index])],
      ["High", price(h[index])],
      ["Low", price(l[index])],
      ["Close", price(c[index])],
      ["Volume", shares.format(v[index])],
    ];
    const when = document.createElement("b");
    when.textContent = time.format(t[index] * 60000) + (short?.[index] ? ` (${short[index]} bars)` : "");
    readout.className = `readout ${c[index] >= o[index] ? "up" : "down"}`;
    readout.replaceChildren(when);
    for (const [name, value] of parts) {
      const part = document.createElement("span");
      const label = document.createElement("i");
      label.textContent = name;
      part.append(label, " ", value);
      readout.append(" ", part);
    }
    slider.value = index;
    slider.setAttribute("aria-valuetext", readout.textContent);
    band.setAttribute("x", `${(slot(index) / count) * 100}%`);
    band.setAttribute("width", `${100 / count}%`);
    band.setAttribute("visibility", marked ? "visible" : "hidden");
  }

  function nearest(x) {
    const box = canvas.getBoundingClientRect();
    const at = ((x - box.left) / box.width) * count - 0.5;
    let best = Math.max(0, Math.min(newest, Math.round(at)));
    while (best > 0 && Math.abs(slot(best - 1) - at) <= Math.abs(slot(best) - at)) best -= 1;
    return best;
  }

  plot.addEventListener("pointermove", (event) => show(nearest(event.clientX), true));
  plot.addEventListener("pointerdown", (event) => show(nearest(event.clientX), true));
  plot.addEventListener("pointerleave", () => show(newest, false));
  slider.addEventListener("input", () => show(Number(slider.value), true));
  slider.addEventListener("focus", () => show(Number(slider.value), true));
  slider.addEventListener("blur", () => show(newest, false));
  show(newest, false);
}

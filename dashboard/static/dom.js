// How is an element made? With its class, its text and what is in it; text is text, never markup.

export const find = (id) => document.getElementById(id);

export function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child != null));
  return made;
}

/** A small shape in the text's colour: up, down, flat, mixed, ok, warn or bad. Drawn, as not every font has them. */
export function mark(shape) {
  const made = element("i", `shape ${shape}`);
  made.ariaHidden = "true";
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A line of the values in a box of 100 × 28, with `base` (a price) as a dotted line when it lies within. */
export function sparkline(values, base, direction) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 28");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", `spark ${direction}`);
  svg.setAttribute("aria-hidden", "true");
  if (values.length < 2) return svg;
  const all = base == null ? values : [...values, base];
  const low = Math.min(...all);
  const span = Math.max(...all) - low || 1;
  const y = (value) => (26 - (24 * (value - low)) / span).toFixed(1);
  const points = values.map((value, at) => `${((100 * at) / (values.length - 1)).toFixed(1)} ${y(value)}`);
  if (base != null) svg.append(path(`M0 ${y(base)}H100`, "base"));
  svg.append(path(`M${points.join("L")}`, "line"));
  return svg;
}

function path(shape, className) {
  const made = document.createElementNS(SVG, "path");
  made.setAttribute("d", shape);
  made.setAttribute("class", className);
  return made;
}

/** A group of buttons of which one is chosen; arrow keys move the choice. Calls `onChoice` with its value. */
export function choice(id, onChoice) {
  const group = find(id);
  const buttons = [...group.querySelectorAll("[role=radio]")];
  const choose = (button, told = true) => {
    for (const other of buttons) {
      other.setAttribute("aria-checked", other === button);
      other.tabIndex = other === button ? 0 : -1;
    }
    if (told) onChoice(button.dataset.value);
  };
  group.addEventListener("click", (event) => {
    const button = event.target.closest("[role=radio]");
    if (button) choose(button);
  });
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    choose(next);
  });
  return (value) => choose(buttons.find((button) => button.dataset.value === value) ?? buttons[0], false);
}

/** What the reader chose last time, where the browser keeps it. */
export const kept = {
  get(name, otherwise) {
    try {
      return localStorage.getItem(`barflow.${name}`) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`barflow.${name}`, value);
    } catch {
      // a browser that keeps nothing shows the defaults next time
    }
  },
};

// Elements of the page: text, shapes, sparklines and radio groups. Text is always text, never markup.

export const byId = (id) => document.getElementById(id);

export function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child != null));
  return made;
}

/** A small shape in the text's colour: up, down, flat, mixed, ok, warn or bad. Some fonts lack such characters. */
export function shape(name) {
  const made = element("i", `shape ${name}`);
  made.ariaHidden = "true";
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A line through the values in a box of 100 × 28. A dotted line shows `base`, a price, where there is one. */
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

function path(data, className) {
  const made = document.createElementNS(SVG, "path");
  made.setAttribute("d", data);
  made.setAttribute("class", className);
  return made;
}

/** Make a radio group of the buttons in an element; arrow keys move the choice. Returns a function that sets it. */
export function radioGroup(id, onChoice) {
  const group = byId(id);
  const buttons = [...group.querySelectorAll("[role=radio]")];
  const check = (button) => {
    for (const other of buttons) {
      other.setAttribute("aria-checked", other === button);
      other.tabIndex = other === button ? 0 : -1;
    }
  };
  const choose = (button) => {
    check(button);
    onChoice(button.dataset.value);
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
  return (value) => check(buttons.find((button) => button.dataset.value === value) ?? buttons[0]);
}

/** Make the shown buttons of an element one stop of the Tab key; the arrow keys move between them. */
export function rovingFocus(group) {
  const shown = () => [...group.querySelectorAll("button:not([hidden])")];
  group.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return document.activeElement.blur();
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const buttons = shown();
    if (!step || !buttons.length) return;
    event.preventDefault();
    buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
  });
}

export const capitalized = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** The reader's choices, stored in the browser where it allows that. */
export const choices = {
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
      // without storage the page starts with its defaults next time
    }
  },
};

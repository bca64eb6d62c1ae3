// Numbers and times as text: aligned figures, New York's or the reader's time, and a dash for a missing value.

const MINUS = "−";
const NONE = "–";
const number = (digits) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const two = number(2);
const whole = number(0);
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });

export const price = (value) => (value == null ? NONE : two.format(value));
export const count = (value) => (value == null ? NONE : whole.format(value));
/** 1 bar, 2 bars. */
export const amount = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
export const volume = (value) => (value == null ? NONE : compact.format(value));
export const tenths = (value) => number(1).format(value);
/** 0.523 as 52 %. */
export const percent = (value) => (value == null ? NONE : `${whole.format(value * 100)} %`);
export const rsi = (value) => (value == null ? NONE : number(1).format(value));

/** +1.25 or −1.25: the sign shows the direction, not only the colour. */
export function signed(value, unit = "") {
  if (value == null) return NONE;
  const text = two.format(Math.abs(value));
  const sign = text === "0.00" ? "" : value > 0 ? "+" : MINUS;
  return `${sign}${text}${unit}`;
}

export const direction = (value) => (value == null || Math.abs(value) < 0.005 ? "flat" : value > 0 ? "up" : "down");

const formats = new Map();
let zone = "ny";
export const setZone = (name) => (zone = name);
export const zoneName = () => (zone === "ny" ? "New York" : "local");

function localized(moment, options) {
  const key = zone + JSON.stringify(options);
  if (!formats.has(key)) {
    const timeZone = zone === "ny" ? "America/New_York" : undefined;
    formats.set(key, new Intl.DateTimeFormat("en-GB", { timeZone, ...options }));
  }
  return formats.get(key).format(moment);
}

/** The Date of an ISO text, or of seconds since 1970. */
export const moment = (value) => new Date(typeof value === "number" ? value * 1000 : value);
const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const DAY = { day: "numeric", month: "short" };
export const clock = (value) => localized(moment(value), CLOCK);
export const day = (value) => localized(moment(value), DAY);
export const dayTime = (value) => localized(moment(value), { ...DAY, ...CLOCK });
export const longTime = (value) => localized(moment(value), { weekday: "short", ...DAY, year: "numeric", ...CLOCK });
export const exactTime = (value) => localized(moment(value), { ...DAY, ...CLOCK, second: "2-digit" });
/** 2025-07-02 13:36:04 UTC, in every zone. */
export const utcTime = (value) => `${moment(value).toISOString().slice(0, 19).replace("T", " ")} UTC`;
export const monthOf = (value) => localized(moment(value), { month: "short", year: "numeric" });
export const yearOf = (value) => localized(moment(value), { year: "numeric" });
/** A session's date, which has no time zone: 2025-07-30 as 30 Jul. */
export const sessionDay = (text) => ofDate(text, DAY);
/** 2025-07-30 as 30 Jul 2025. */
export const sessionDate = (text) => ofDate(text, { ...DAY, year: "numeric" });
const ofDate = (text, options) =>
  new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options }).format(new Date(`${text}T00:00:00Z`));

export function age(minutes) {
  if (minutes == null) return NONE;
  const known = Math.max(0, Math.round(minutes));
  if (known < 60) return `${known} min`;
  if (known < 48 * 60) return `${Math.floor(known / 60)} h ${known % 60 ? `${known % 60} min` : ""}`.trim();
  return `${Math.floor(known / 1440)} days`;
}

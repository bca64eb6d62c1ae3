// Opens pages in a real browser. It reads one request (JSON) per line on stdin, and writes one answer per line.
//
// request: { url, until: "load" | "networkidle", width, height, scheme: "light" | "dark", print: bool,
//            scale: device pixels a CSS pixel, run: body of an async function of the Playwright page,
//            screenshot: path, fullPage: bool }
// answer:  { errors: warnings and errors of the console and the page, outside: requests to another origin (all are
//            blocked), value: what `run` returned }, or { failed: why the page or `run` failed }

import { inflate } from "@sparticuz/chromium";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const MODULES = join(dirname(fileURLToPath(import.meta.url)), "../../node_modules");
const PARTS = ["chromium.br", "fonts.tar.br", "swiftshader.tar.br", "al2023.tar.br"]; // the last one holds system libraries

/** Unpack the browser once. A rename publishes the folder, so two runs at the same time do not collide. */
async function unpacked() {
  const home = join(MODULES, ".cache", "chromium");
  if (existsSync(home)) return home;
  mkdirSync(dirname(home), { recursive: true });
  const unfinished = mkdtempSync(`${home}-`);
  const { TMPDIR = tmpdir() } = process.env;
  process.env.TMPDIR = unfinished; // the package unpacks into it
  for (const part of PARTS) await inflate(join(MODULES, "@sparticuz/chromium/bin", part));
  process.env.TMPDIR = TMPDIR;
  const fonts = `<fontconfig><dir>${join(home, "fonts")}</dir><cachedir>${join(home, "cache")}</cachedir></fontconfig>`;
  writeFileSync(join(unfinished, "fonts.conf"), fonts);
  try {
    renameSync(unfinished, home);
  } catch {
    rmSync(unfinished, { recursive: true });
  }
  return home;
}

/** The origin that every request of a page must stay in. A file is an origin of its own. */
const origin = (url) => (url.protocol === "file:" ? url.pathname : url.host);

let current;
// A route handler of `run` that fails must fail its own test, not end the browser of all.
process.on("unhandledRejection", (error) => current.errors.push(String(error)));

async function open(page, request) {
  const seen = { errors: [], outside: [], value: null };
  current = seen;
  const inside = (text) => origin(new URL(text)) === origin(new URL(request.url));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) seen.errors.push(message.text());
  });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("websocket", (socket) => inside(socket.url()) || seen.outside.push(socket.url()));
  await page.route("**", (route) => {
    const url = route.request().url();
    if (url.startsWith("data:") || inside(url)) return route.continue();
    seen.outside.push(url);
    return route.abort();
  });
  await page.goto(request.url, { waitUntil: request.until ?? "load" });
  if (request.print) await page.emulateMedia({ media: "print" });
  const AsyncFunction = (async () => {}).constructor;
  seen.value = (await new AsyncFunction("page", request.run ?? "")(page)) ?? null;
  if (request.screenshot) await page.screenshot({ path: request.screenshot, fullPage: request.fullPage ?? false });
  return seen;
}

const home = await unpacked();
const browser = await chromium.launch({
  executablePath: join(home, "chromium"),
  args: ["--no-sandbox", "--font-render-hinting=none"],
  // Bundled fonts and libraries: the same picture on every host, and nothing to install.
  env: { ...process.env, FONTCONFIG_FILE: join(home, "fonts.conf"), LD_LIBRARY_PATH: join(home, "al2023/lib") },
});
try {
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    const page = await browser.newPage({
      viewport: { width: request.width ?? 1280, height: request.height ?? 900 },
      colorScheme: request.scheme ?? "light",
      deviceScaleFactor: request.scale ?? 1,
      locale: "en-US",
      timezoneId: "Asia/Tokyo", // New York times on a page must not depend on the reader's time zone
    });
    const answer = await open(page, request).catch((error) => ({ failed: [error.stack, ...current.errors].join("\n") }));
    process.stdout.write(`${JSON.stringify(answer)}\n`);
    await page.unrouteAll({ behavior: "ignoreErrors" }); // a handler may still wait for an answer
    await page.close();
  }
} finally {
  await browser.close();
}

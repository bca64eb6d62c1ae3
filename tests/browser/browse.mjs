// What does a real browser make of a page? Reads one request (JSON, on stdin), prints one answer (JSON, on stdout).
//
// request: { url, width, height, scheme: "light" | "dark", print: bool, run: body of an async function of the
//            Playwright page, screenshot: path, fullPage: bool, scale: device pixels a CSS pixel }
// answer:  { errors: what the console and the page complained of, outside: requests that wanted to leave the page's
//            origin (none is let out), value: what `run` returned }

import { inflate } from "@sparticuz/chromium";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const MODULES = join(dirname(fileURLToPath(import.meta.url)), "../../node_modules");
const PARTS = ["chromium.br", "fonts.tar.br", "swiftshader.tar.br", "al2023.tar.br"]; // the last: system libraries

/** Unpacks the browser once, into a folder that appears whole: of two runs that unpack at once, one wins. */
async function unpacked() {
  const home = join(MODULES, ".cache", "chromium");
  if (existsSync(home)) return home;
  mkdirSync(dirname(home), { recursive: true });
  const unfinished = mkdtempSync(`${home}-`);
  const { TMPDIR = tmpdir() } = process.env;
  process.env.TMPDIR = unfinished; // where the package unpacks to
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

const request = JSON.parse(readFileSync(0, "utf8"));
const home = await unpacked();
const browser = await chromium.launch({
  executablePath: join(home, "chromium"),
  args: ["--no-sandbox", "--font-render-hinting=none"],
  // Its own fonts and libraries: the same picture on every machine, and none of them to install.
  env: { ...process.env, FONTCONFIG_FILE: join(home, "fonts.conf"), LD_LIBRARY_PATH: join(home, "al2023/lib") },
});
try {
  const page = await browser.newPage({
    viewport: { width: request.width ?? 1280, height: request.height ?? 900 },
    colorScheme: request.scheme ?? "light",
    deviceScaleFactor: request.scale ?? 1,
    locale: "en-US",
    timezoneId: "Asia/Tokyo", // a page that shows New York's time must not depend on the reader's
  });
  const errors = [];
  const outside = [];
  const place = (url) => (url.protocol === "file:" ? url.pathname : url.origin);
  const own = place(new URL(request.url));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.route("**", (route) => {
    const url = new URL(route.request().url());
    if (url.protocol === "data:" || place(url) === own) return route.continue();
    outside.push(url.href);
    return route.abort();
  });
  await page.goto(request.url, { waitUntil: "load" });
  if (request.print) await page.emulateMedia({ media: "print" });
  const run = Object.getPrototypeOf(async () => {}).constructor;
  const value = await new run("page", request.run ?? "")(page);
  if (request.screenshot) await page.screenshot({ path: request.screenshot, fullPage: request.fullPage ?? false });
  process.stdout.write(JSON.stringify({ errors, outside, value: value ?? null }));
} finally {
  await browser.close();
}

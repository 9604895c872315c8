// Headless Chromium with software WebGL, steered by lines of JSON (browser.py writes them).
//   node page.mjs CHROMIUM PACKAGES DOWNLOADS
// Takes {do, page, ...} a line on stdin, answers {ok: true, value} or {ok: false, error} a line on stdout. `page` is a
// name of ours; do "open" makes the page of that name. Ends when stdin does.
import {createRequire} from "node:module";
import path from "node:path";
import readline from "node:readline";
import {pathToFileURL} from "node:url";

const [chromium, packages, downloads] = process.argv.slice(2);
const require = createRequire(path.join(packages, "package.json"));
const puppeteer = (await import(pathToFileURL(require.resolve("puppeteer-core")))).default;
const browser = await puppeteer.launch({
  executablePath: chromium, headless: true, protocolTimeout: 240000,
  args: ["--no-sandbox", "--use-angle=swiftshader", "--use-gl=angle", "--enable-unsafe-swiftshader",
         "--ignore-gpu-blocklist", "--force-color-profile=srgb", "--disable-dev-shm-usage"],
});
const control = await browser.target().createCDPSession();
await control.send("Browser.setDownloadBehavior", {behavior: "allow", downloadPath: downloads, eventsEnabled: true});

const pages = new Map();
const pause = ms => new Promise(done => setTimeout(done, ms));

// The smallest visible element whose own text, value or accessible name is `text`; runs in the page.
const FIND = `text => {
  const said = e => [e.innerText, e.value, e.getAttribute("aria-label"), e.placeholder].map(v => (v || "").trim());
  const all = [...document.querySelectorAll("button, label, a, input, [role=button], [role=tab], span, p, div")];
  const fit = all.filter(e => said(e).includes(text) && e.getClientRects().length);
  return fit.sort((a, b) => a.querySelectorAll("*").length - b.querySelectorAll("*").length)[0] || null;
}`;

async function find(page, text) {
  const handle = await page.waitForFunction(`(${FIND})(${JSON.stringify(text)})`, {timeout: 20000, polling: 100});
  return handle.asElement();
}

const doing = {
  async open({page: name, url, width, height}) {
    const page = await browser.newPage();
    const entry = {page, errors: []};
    page.on("console", message => {
      if (["error", "assert"].includes(message.type())) entry.errors.push(message.text().slice(0, 400));
    });
    page.on("pageerror", error => entry.errors.push(String(error.message || error).slice(0, 400)));
    page.on("requestfailed", request => {
      if (!request.url().startsWith("data:")) {
        entry.errors.push(`${request.url().slice(0, 200)}: ${request.failure()?.errorText}`);
      }
    });
    pages.set(name, entry);
    await page.setViewport({width, height, deviceScaleFactor: 1});
    await page.goto(url, {waitUntil: "load", timeout: 60000});
  },
  wait: ({seconds}) => pause(seconds * 1000),
  async until({page, script, seconds}) {
    await pages.get(page).page.waitForFunction(script, {timeout: seconds * 1000, polling: 100});
  },
  evaluate: ({page, script}) => pages.get(page).page.evaluate(script),
  async click({page, text}) {
    await (await find(pages.get(page).page, text)).click();
  },
  async drag({page, start, end, steps, seconds, button}) {
    const {mouse} = pages.get(page).page;
    await mouse.move(...start);
    await mouse.down({button});
    for (let i = 1; i <= steps; i++) {
      await mouse.move(...[0, 1].map(k => start[k] + (end[k] - start[k]) * i / steps));
      await pause(seconds * 1000 / steps);
    }
    await mouse.up({button});
  },
  async upload({page, text, file}) {
    const {page: tab} = pages.get(page);
    const [chooser] = await Promise.all([tab.waitForFileChooser({timeout: 20000}), find(tab, text).then(e => e.click())]);
    await chooser.accept([file]);
  },
  async shoot({page, out}) {
    const {page: tab} = pages.get(page);
    await tab.bringToFront();  // a page behind another one draws nothing
    await tab.screenshot({path: out, type: "png", timeout: 120000});
  },
  errors: ({page}) => pages.get(page).errors,
  async front({page}) {
    await pages.get(page).page.bringToFront();
  },
  async close({page}) {
    await pages.get(page).page.close();
    pages.delete(page);
  },
};

console.log(JSON.stringify({ok: true}));
for await (const line of readline.createInterface({input: process.stdin})) {
  let answer;
  try {
    const job = JSON.parse(line);
    answer = {ok: true, value: await doing[job.do](job)};
  } catch (error) {
    answer = {ok: false, error: String(error.message || error).slice(0, 1000)};
  }
  console.log(JSON.stringify(answer));
}
await browser.close();

// Takes pictures of files in web viewers, in headless Chromium with software WebGL.
//   node shoot.mjs JOBS.json
// JOBS.json: {chromium, packages, jobs: [{viewer, file, name, out, width, height, fov, position, target, up,
//            background, settings}]}; fov is vertical, in degrees. Prints a line for each job; code 1 if one failed.
// A job without a viewer is a page of its own: `file`, with its query `settings.query`. What it asks the CDN for comes
// from the packages.
import fs from "node:fs";
import http from "node:http";
import {createRequire} from "node:module";
import path from "node:path";
import {pathToFileURL} from "node:url";

const {chromium, packages, jobs} = JSON.parse(fs.readFileSync(process.argv[2]));
const require = createRequire(path.join(packages, "package.json"));
const puppeteer = (await import(pathToFileURL(require.resolve("puppeteer-core")))).default;
const here = path.dirname(new URL(import.meta.url).pathname);
// Not by stepping in on requests: with that on, Chromium loses one in four of what workers ask for.
const CDN = /https:\/\/cdn\.jsdelivr\.net\/npm\/((?:@[^/"]+\/)?[^@/"]+)@[^/"]+\//g;
const TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"};

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  const [, kind, number] = url.pathname.split("/");  // /file/NUMBER/NAME: some viewers look at the name's ending
  const job = jobs[Number(kind === "file" ? number : url.searchParams.get("job"))];
  if (url.pathname === "/job") return response.end(JSON.stringify(job));
  const inside = (root, name) => {
    const found = path.join(root, path.normalize(decodeURIComponent(name)));
    return found.startsWith(root + path.sep) ? found : "";
  };
  const name = url.pathname.split("/").slice(3).join("/");  // beside it: a .gltf's .bin, chunks of streamed SOG
  const file = kind === "file" ? (name === job.name ? job.file : inside(path.dirname(job.file), name))
    : inside(url.pathname.startsWith("/node_modules/") ? packages : here, url.pathname);
  if (!file || !fs.existsSync(file) || fs.statSync(file).isDirectory()) return response.writeHead(404).end();
  const type = TYPES[path.extname(file)] || "application/octet-stream";
  if (kind === "file" && type === "text/html") {
    const text = fs.readFileSync(file, "utf8").replaceAll(CDN, "/node_modules/$1/");
    return response.writeHead(200, {"content-type": type}).end(text);
  }
  response.writeHead(200, {"content-type": type, "content-length": fs.statSync(file).size});
  fs.createReadStream(file).pipe(response);
});
await new Promise(done => server.listen(0, "127.0.0.1", done));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await puppeteer.launch({
  executablePath: chromium, headless: true, protocolTimeout: 240000,
  args: ["--no-sandbox", "--use-angle=swiftshader", "--use-gl=angle", "--enable-unsafe-swiftshader",
         "--ignore-gpu-blocklist", "--force-color-profile=srgb", "--disable-dev-shm-usage"],
});
let failed = false;
for (const [i, job] of jobs.entries()) {
  const page = await browser.newPage();
  const said = [];
  page.on("console", message => said.push(message.text().slice(0, 200)));
  page.on("pageerror", error => said.push(String(error.message || error).slice(0, 300)));
  try {
    await page.setViewport({width: job.width, height: job.height, deviceScaleFactor: 1});
    const place = job.viewer ? `/${job.viewer}.html?job=${i}` : job.url + (job.settings.query || "");
    await page.goto(origin + place, {waitUntil: "load", timeout: 60000});
    await page.waitForFunction("window.frames > 0 || window.failure", {timeout: 120000, polling: 200});
    const failure = await page.evaluate(() => window.failure);
    if (failure) throw new Error(failure);
    await new Promise(done => setTimeout(done, 2500));
    // Sorting and loading go on behind the first frame: the picture counts when it stands still.
    let last = "", same = 0, shot;
    for (let n = 0; n < 60 && same < 3; n++) {
      shot = await page.screenshot({type: "png", timeout: 120000});
      const text = Buffer.from(shot).toString("base64");
      same = text === last ? same + 1 : 0;
      last = text;
      await new Promise(done => setTimeout(done, 500));
    }
    fs.writeFileSync(job.out, shot);
    console.log(`${job.viewer} ${job.name}: written`);
  } catch (error) {
    failed = true;
    console.log(`${job.viewer} ${job.name}: ${error.message || error}\n  ${said.slice(0, 5).join("\n  ")}`);
  }
  await page.close();
}
await browser.close();
server.close();
process.exit(failed ? 1 : 0);

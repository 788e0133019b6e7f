// A page on loopback, loaded, clicked, drawn and printed in Debian's Chromium; with its own sandbox it does not start.
const http = require("http");
const { chromium } = require("playwright-core");

const PAGE = '<title>here</title><button onclick="fetch(\'/clicked\').then(() => document.title = \'clicked\')">go</button>';
const options = { executablePath: "/usr/bin/chromium", timeout: 120_000 };

async function main() {
  const seen = [];
  const server = http.createServer((request, response) => {
    seen.push(request.url);
    response.setHeader("content-type", "text/html");
    response.end(PAGE);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({ ...options, chromiumSandbox: false });
  const page = await browser.newPage({ viewport: { width: 800, height: 600 } });
  await page.goto(`http://127.0.0.1:${server.address().port}/`, { timeout: 120_000 });
  await page.click("button");
  await page.waitForFunction(() => document.title === "clicked", null, { timeout: 120_000 });
  await page.screenshot({ path: "page.png" });
  if ((await page.pdf()).length < 1000 || !seen.includes("/clicked")) throw new Error("no page");
  console.log(browser.version());
  await browser.close();
  server.close();
  const walled = await chromium.launch({ ...options, chromiumSandbox: true }).catch((error) => error.message);
  if (typeof walled !== "string" || !/sandbox/i.test(walled)) throw new Error(`its own sandbox works? ${walled}`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

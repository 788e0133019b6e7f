#!/usr/bin/env node
// The server of mcp_server.py as a package of npm's, as far as a test of packages needs it: one tool, which tells where
// it runs, and that what it depends on is there.
const words = require("words");
const readline = require("readline");

const TOOL = {
  name: "where",
  description: "Tells.",
  inputSchema: { type: "object", properties: { say: { type: "string" } }, required: ["say"] },
};

function told(said) {
  const facts = { file: __filename, uid: process.getuid(), args: process.argv.slice(2), words: words.version };
  return `answered: ${said} ${JSON.stringify(facts)}`;
}

function reply(method, params) {
  switch (method) {
    case "initialize":
      return {
        protocolVersion: params.protocolVersion,
        capabilities: { tools: {} },
        serverInfo: { name: "probe", version: "1" },
      };
    case "tools/list":
      return { tools: [TOOL] };
    case "tools/call":
      return { content: [{ type: "text", text: told((params.arguments || {}).say) }], isError: false };
    default:
      return {};
  }
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id !== undefined) {
    console.log(JSON.stringify({ jsonrpc: "2.0", id, result: reply(method, params || {}) }));
  }
});

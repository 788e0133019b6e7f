// Loaded by OpenCode's runtime before OpenCode itself, in its own process alone: code that is not in its program is not
// imported, but for root's plugin. It looks for .opencode/{plugin,plugins}/ and opencode.json of the repository in two
// places, and of these only one knows a variable that switches it off; what is found there would run by itself.
import fs from "node:fs";
import threads from "node:worker_threads";

// Not its path: what a path means, the tsconfig.json of a repository says.
const GUARD = `data:text/javascript;base64,${btoa(fs.readFileSync("/opt/opencode/guard.js", "latin1"))}`;
const FOREIGN = /^(?!\/\$bunfs\/)/; // all but the files inside of the program
const OURS = /^(file:\/\/)?\/opt\/opencode\/tool-hook\.js$/;
const TOOL_HOOK = fs.readFileSync("/opt/opencode/tool-hook.js", "latin1");

// A worker has a runtime of its own, which does not load this by itself.
const guarded = (Worker) =>
  class extends Worker {
    constructor(program, options = {}) {
      super(program, { ...options, preload: [GUARD].concat(options.preload ?? []) });
    }
  };
globalThis.Worker = guarded(globalThis.Worker);
threads.Worker = guarded(threads.Worker);

Bun.plugin({
  name: "guard",
  setup(build) {
    build.onResolve({ filter: OURS }, () => ({ path: "tool-hook", namespace: "root" })); // whatever that path means
    build.onLoad({ filter: /./, namespace: "root" }, () => ({ contents: TOOL_HOOK, loader: "js" }));
    build.onLoad({ filter: FOREIGN, namespace: "file" }, () => ({
      contents: `throw new Error("refused: not a part of OpenCode");`,
      loader: "js",
    }));
  },
});

// Not for programs that the agent starts.
const { GUARDED_CWD } = process.env;
delete process.env.BUN_INSPECT_PRELOAD;
delete process.env.GUARDED_CWD;
if (Bun.isMainThread) {
  process.chdir(GUARDED_CWD);
  process.env.PWD = GUARDED_CWD;
}

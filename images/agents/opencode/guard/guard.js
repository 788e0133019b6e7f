// Loaded by OpenCode's runtime before OpenCode itself, in its own process alone: code that is not in its program is not
// imported. It reads .opencode/{plugin,plugins}/ and opencode.json of the repository in two places, and of these only
// one knows the variables that switch it off; what is found there would run by itself.
import threads from "node:worker_threads";

const GUARD = import.meta.path;
const FOREIGN = /^(?!\/\$bunfs\/)/; // all but the files inside of the program

delete process.env.BUN_INSPECT_PRELOAD; // not for programs that the agent starts

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
    build.onLoad({ filter: FOREIGN, namespace: "file" }, () => ({
      contents: `throw new Error("refused: not a part of OpenCode");`,
      loader: "js",
    }));
  },
});

// Root's plugin, and the only one that guard.js lets through: before each call of a tool it has a program tell the host
// of it. That gets nothing of OpenCode's environment, prints nothing, and is waited for no longer than two seconds.
const PROGRAM = "/usr/lib/coding-agents/tool-hook";

const before = async ({ tool }, { args }) => {
  try {
    const stdin = new Blob([JSON.stringify({ tool_name: tool, tool_input: args })]);
    const quiet = { cwd: "/", env: {}, stdin, stdout: "ignore", stderr: "ignore" };
    await Bun.spawn([PROGRAM], { ...quiet, timeout: 2000, killSignal: "SIGKILL" }).exited;
  } catch {} // an agent works as well without it
};

export default { id: "tool-hook", server: async () => ({ "tool.execute.before": before }) };
